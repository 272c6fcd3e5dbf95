"""The facade: wires the stages of a query's life, holds the lock, computes nothing.

A query is read and forecast without the lock, on knowledge that never changes;
what was learned online, the load and the choice are looked up under it.
"""

from collections.abc import Collection, Mapping, Sequence

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.limits import Terms
from mixllm_integrations.core.reading import read, token_array
from mixllm_integrations.core.sharing import SharingPool
from mixllm_integrations.core.types import (
    IMPLICIT_SIGNALS,
    BatchPrediction,
    Decision,
    Feedback,
    FeedbackKind,
    ImplicitSignal,
    Outcome,
)

__all__ = ["Router"]


class Router(SharingPool):
    """Sends each query to the candidate that is worth most for it.

    Without `fit` it routes from priors and learns from feedback; with labelled
    records it predicts each candidate's quality and cost from the query. Every
    method may be called from several threads at once.

    Parameters
    ----------
    candidates
        Whom to choose from; names are unique.
    encoder
        Text to embedding; ``None``: the shipped static encoder.
    predictor
        ``"auto"`` (by cross-validation), ``"ridge"``, ``"forest"``, ``"knn"``,
        ``"mlp"`` or ``"ensemble"``.
    prior
        Of candidates without labels: ``"shipped"``, ``"none"``, a `QualityPrior`.
    willingness_to_pay
        USD for one whole point of quality: a certainly right answer instead of
        a certainly wrong one.
    exploration
        Weight of the uncertainty; 0 turns exploration off.
    exploration_form
        ``"width"``: sqrt(xᵀA⁻¹x), ``"leverage"``: the paper's xᵀA⁻¹x,
        ``"thompson"``: each quality is drawn from its posterior.
    waiting_weight
        Weight of the waiting penalty; 0 turns it off.
    waiting_tolerance_seconds
        How late an answer may start before it is worth nothing.
    max_cost_per_query
        Highest predicted cost in USD of one query; ``None``: any.
    n_domains
        The most domains that tags are grouped into; 0: none.
    l2
        Ridge of the design matrices.
    forgetting
        What older online data are multiplied by at each new observation, in
        (0, 1]; 1 forgets nothing.
    binary_feedback
        How 0 and 1 are learned from: ``"bayes"``, ``"policy_gradient"`` (the
        paper's: they move a score of their own, which refits leave alone).
    implicit_signals
        Which of what the traffic itself tells is learned from: see
        `record_signal`.
    refit_every
        After how many observations `refit` runs in the background; ``None``:
        only when it is called.
    exploration_spread
        With ``"thompson"``: standard deviations of that posterior in use, in
        units of the honest one.
    randomisation
        Share of the decisions that are made by lot, so that a log of them can
        tell what another policy would have earned.
    exploration_budget, exploration_period_seconds
        Share of the predicted spending of a period that exploring may add;
        ``None``: any, but 0.02 while newcomers are tried.
    spending_budget, spending_period_seconds
        USD per period, which the willingness to pay is lowered for to make it
        last; ``None``: any. See `spending`.
    when_spent
        What happens when what is left pays for nobody: ``"cheapest"`` goes on
        with the cheapest candidate, ``"stop"`` raises `BudgetExceededError`.
    decision_capacity, decision_max_age_seconds
        How many decisions may await feedback, and how long.
    clock
        Seconds that never go backwards; injected in tests and simulations.
    seed
        Makes everything that is drawn deterministic.

    Raises
    ------
    NoCandidateError
        If there are no candidates.
    ConfigurationError
        If two candidates have one name, or a setting cannot be used.

    Notes
    -----
    Source: MixLLM (Wang et al., NAACL 2025). Defaults are our choice.

    Examples
    --------
    >>> from mixllm_integrations import Candidate
    >>> router = Router([Candidate("small", 0.1, 0.4), Candidate("large", 5.0, 15.0)])
    >>> decision = router.route("What is 2 + 2?")
    >>> decision.candidate in {"small", "large"}
    True
    >>> router.record_feedback(decision.id, 1.0)
    True
    """

    @property
    def implicit_signals(self) -> tuple[ImplicitSignal, ...]:
        """Which of what the traffic itself tells is learned from."""
        return self._settings.implicit_signals

    def predict(
        self, queries: Sequence[str], *, input_tokens: Sequence[int] | None = None
    ) -> BatchPrediction:
        """Return what is expected of every candidate for every query.

        Parameters
        ----------
        queries
            Texts.
        input_tokens
            Length of each whole prompt, where the caller knows it.

        Returns
        -------
        BatchPrediction
            Arrays of shape ``(n_queries, n_candidates)``; cost in USD.
        """
        reading = read(queries, self.encoder)
        tokens = token_array(input_tokens, len(reading.ids))
        return self._ask(lambda decider: decider.predict(reading, tokens))

    def route(
        self,
        query: str,
        *,
        input_tokens: int | None = None,
        requires: Collection[str] = (),
        among: Collection[str] | None = None,
        barred: Mapping[str, str] | None = None,
        willingness_to_pay: float | None = None,
        waiting_tolerance_seconds: float | None = None,
        max_cost_per_query: float | None = None,
        discounts: Mapping[str, float] | None = None,
        head_start: Mapping[str, float] | None = None,
        charge_load: bool = True,
        remember: bool = True,
    ) -> Decision:
        """Decide which candidate a query goes to, and count it as its load.

        Parameters
        ----------
        query
            Any text. Its length never makes this fail; an empty one is routed
            by what is known of the candidates alone.
        input_tokens
            Length of the whole prompt, where the caller knows it.
        requires
            ``"tools"``, ``"vision"``, ``"structured_output"``: abilities that
            the query needs.
        among
            Names of the only candidates that may compete.
        barred
            Names of candidates that may not, and why: `explain` tells.
        willingness_to_pay, waiting_tolerance_seconds, max_cost_per_query
            For this query alone; ``None``: those of the router.
        discounts
            USD that a candidate would save on this query, for example with a
            warm prompt cache.
        head_start
            What else speaks for a candidate, in units of quality.
        charge_load
            Whether the query will be sent there; not where one only asks why.
        remember
            Whether the decision awaits its outcome and feedback.

        Returns
        -------
        Decision
            Tell what came of it with `record_outcome`.

        Raises
        ------
        NoCandidateError
            If a hard limit excludes every candidate; `BudgetExceededError` if
            what is left of the spending budget does.
        UnknownCandidateError
            If `among` names a candidate that the router does not have.
        """
        if not isinstance(query, str):
            raise TypeError(f"a query must be a str, not a {type(query).__name__}")
        most = self._max_cost_per_query
        terms = Terms(
            requires=requires,
            among=among,
            barred=barred or {},
            max_cost_per_query=most
            if max_cost_per_query is None
            else max_cost_per_query,
            willingness_to_pay=willingness_to_pay,
            waiting_tolerance_seconds=waiting_tolerance_seconds,
            discounts=discounts or {},
            head_start=head_start or {},
        )
        tokens = None if input_tokens is None else [input_tokens]
        (decision,) = self._decided(
            [query], tokens, terms, charge_load=charge_load, remember=remember
        )
        return decision

    def route_batch(
        self,
        queries: Sequence[str],
        *,
        input_tokens: Sequence[int] | None = None,
        charge_load: bool = True,
    ) -> list[Decision]:
        """Decide on several queries, one after the other.

        Parameters
        ----------
        queries
            Texts.
        input_tokens
            Length of each whole prompt, where the caller knows it.
        charge_load
            Count each decision as load before the next one is made, so that
            one candidate is not stampeded.

        Returns
        -------
        list of Decision
            In the order of the queries.
        """
        terms = Terms(max_cost_per_query=self._max_cost_per_query)
        return self._decided(queries, input_tokens, terms, charge_load=charge_load)

    def _decided(
        self,
        queries: Sequence[str],
        input_tokens: Sequence[int] | None,
        terms: Terms,
        *,
        charge_load: bool,
        remember: bool = True,
    ) -> list[Decision]:
        reading = read(queries, self.encoder)
        tokens = token_array(input_tokens, len(reading.ids))
        return self._ask(
            lambda decider: decider.decide(
                reading, tokens, terms, charge_load=charge_load, remember=remember
            )
        )

    def record_outcome(self, decision_id: str, outcome: Outcome) -> None:
        """Tell what happened when the chosen candidate was called.

        Releases its load, and teaches its speed, and the length and cost of its
        answers. A failed call teaches nothing of them. The second outcome of a decision
        changes nothing.

        Parameters
        ----------
        decision_id
            Of which decision.
        outcome
            What happened.

        Raises
        ------
        UnknownDecisionError
            If the decision is not pending.
        """
        self._waiting.finish(decision_id, outcome)
        with self._lock:
            if self._ledger.record_outcome(decision_id, outcome):
                pending = self._ledger.get(decision_id)
                cost = self._decider.billed(pending.candidate, outcome)
                failed = outcome.error is not None
                if not self._ledger.has_adopted(decision_id):
                    self._spending.settle(decision_id, cost, failed=failed)
                events = self._experience.measure(
                    pending, outcome, cost, self._expected
                )
                self._note(*events)

    def record_feedback(
        self,
        decision_id: str,
        reward: float,
        *,
        kind: FeedbackKind = "refined",
        source: str | None = None,
    ) -> bool:
        """Tell how good the answer was; the router learns from it at once.

        Parameters
        ----------
        decision_id
            Of which decision.
        reward
            In [0, 1].
        kind
            ``"refined"``: a measured quality; ``"binary"``: 1 satisfied, 0 not.
        source
            Who says so.

        Returns
        -------
        bool
            Whether it was new. The second feedback of one kind changes
            nothing; of two kinds the first one teaches.

        Raises
        ------
        ConfigurationError
            If the reward is out of range; it may be sent again, corrected.
        UnknownDecisionError
            If the decision is not pending.
        """
        feedback = Feedback(decision_id, reward, kind, source)
        with self._lock:
            pending = self._ledger.get(decision_id)
            self._waiting.finish(decision_id)  # who judges an answer has it
            is_first = not pending.feedback
            is_new = self._ledger.record_feedback(feedback)
            if is_first:
                event = self._experience.teach(pending, feedback, self._expected)
                self._note(event)
        self._refit_if_due()
        return is_new

    def record_signal(self, decision_id: str, signal: ImplicitSignal) -> bool:
        """Tell what the traffic itself says of an answer.

        Learned from if the router was made with it among its `implicit_signals`;
        always, the length of an answer that was ``"truncated"`` teaches nothing
        if that is said before its outcome.

        Parameters
        ----------
        decision_id
            Of which decision.
        signal
            ``"regenerate"``: the user wanted another answer; ``"tool_error"``: a
            tool refused the call; ``"parse_failure"``: what should have been of a
            schema was not; ``"truncated"``: the answer was cut short.

        Returns
        -------
        bool
            Whether it was new. The second one of a kind changes nothing.

        Raises
        ------
        ConfigurationError
            If the signal is unknown.
        UnknownDecisionError
            If the decision is not pending.
        """
        if signal not in IMPLICIT_SIGNALS:
            raise ConfigurationError(
                f"unknown signal {signal!r}; use one of {IMPLICIT_SIGNALS}"
            )
        with self._lock:
            is_new = self._ledger.record_signal(decision_id, signal)
            if is_new:
                pending = self._ledger.get(decision_id)
                self._experience.signal(pending, signal, self._expected)
        return is_new
