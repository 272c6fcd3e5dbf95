"""The facade: wires the stages of a query's life, holds the lock, computes nothing.

A query is read and forecast without the lock, on knowledge that never changes;
what was learned online, the load and the choice are looked up under it.
"""

import logging
import time
from collections.abc import Collection, Iterable, Sequence

from mixllm_integrations.core import budget
from mixllm_integrations.core.decide import token_array
from mixllm_integrations.core.errors import NotFittedError
from mixllm_integrations.core.judging import judge
from mixllm_integrations.core.pool import CandidatePool
from mixllm_integrations.core.reading import read
from mixllm_integrations.core.records import tabulate
from mixllm_integrations.core.types import (
    BatchPrediction,
    Calibration,
    Decision,
    Feedback,
    FeedbackKind,
    Outcome,
    RoutingRecord,
)

__all__ = ["Router"]

_LOG = logging.getLogger("mixllm_integrations")


class Router(CandidatePool):
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
        ``"width"``: sqrt(xᵀA⁻¹x), ``"leverage"``: the paper's xᵀA⁻¹x.
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

    def fit(
        self, records: Iterable[RoutingRecord], *, progress: bool = False
    ) -> "Router":
        """Learn from labelled answers.

        Candidates that were fitted before and have no record now keep what was
        learned of them: to fit a newcomer, pass its records alone. Otherwise
        everything is learned anew, and what was learned online is dropped.

        Parameters
        ----------
        records
            In any order; not every candidate needs to be labelled on every
            query. Several of one query and candidate are averaged.
        progress
            Log each stage at level INFO.

        Returns
        -------
        Router
            Itself. If anything fails, it is as it was before.

        Raises
        ------
        ConfigurationError
            If there are no records.
        UnknownCandidateError
            If a record names a candidate that the router does not have.
        """
        began = time.perf_counter()
        level = logging.INFO if progress else logging.DEBUG
        with self._fitting:
            candidates = dict(self._candidates)
            table = tabulate(records, tuple(candidates))
            size = (len(table.queries), len(table.names))
            _LOG.log(level, "fitting on %d queries of %d candidates", *size)
            before = self._knowledge
            knowledge, contexts = self._learned(before, table, candidates)
            with self._lock:
                experience = self._experience
                if knowledge.version != before.version:
                    experience = self._new_experience(knowledge)
                for name in self._candidates:
                    if name not in experience.designs.names:
                        experience.add(name)
                here = [i for i, n in enumerate(table.names) if n in self._candidates]
                names = [table.names[i] for i in here]
                experience.start(names, contexts, table.quality[:, here])
                self._ledger.outdate(names)
                self._adopt(knowledge, experience)
        _LOG.log(level, "fitted in %.1f s", time.perf_counter() - began)
        return self

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
        willingness_to_pay: float | None = None,
        charge_load: bool = True,
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
        willingness_to_pay
            For this query alone; ``None``: that of the router.
        charge_load
            Whether the query will be sent there; not where one only asks why.

        Returns
        -------
        Decision
            Tell what came of it with `record_outcome`.

        Raises
        ------
        NoCandidateError
            If a hard limit excludes every candidate.
        UnknownCandidateError
            If `among` names a candidate that the router does not have.
        """
        if not isinstance(query, str):
            raise TypeError(f"a query must be a str, not a {type(query).__name__}")
        reading = read([query], self.encoder)
        tokens = token_array(None if input_tokens is None else [input_tokens], 1)
        decisions = self._ask(
            lambda decider: decider.decide(
                reading,
                tokens,
                requires=requires,
                among=among,
                max_cost_per_query=self._max_cost_per_query,
                willingness_to_pay=willingness_to_pay,
                charge_load=charge_load,
            )
        )
        return decisions[0]

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
        reading = read(queries, self.encoder)
        tokens = token_array(input_tokens, len(reading.ids))
        return self._ask(
            lambda decider: decider.decide(
                reading,
                tokens,
                max_cost_per_query=self._max_cost_per_query,
                charge_load=charge_load,
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
                self._experience.measure(pending, outcome, cost)

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
                self._experience.teach(pending, float(reward))
            return is_new

    def calibrate(
        self,
        records: Iterable[RoutingRecord],
        *,
        quality_target: float | None = None,
        cost_target: float | None = None,
        apply: bool = True,
    ) -> Calibration:
        """Find the willingness to pay that meets a target.

        Parameters
        ----------
        records
            Labelled answers: others than the training ones, which the router
            then predicts as it is, or the training ones, each of which is judged
            by heads that were fitted without it. Queries that lack a label of a
            candidate are not judged, unless fewer than 20 are complete: then a
            missing label is taken as predicted.
        quality_target, cost_target
            One of them, relative to the strongest candidate: ``0.97`` of its
            quality, or ``0.25`` of its cost.
        apply
            Whether to route by the value found from now on.

        Returns
        -------
        Calibration
            The value, and what to expect of it.

        Raises
        ------
        NotFittedError
            If the router has not been fitted.
        ConfigurationError
            If not exactly one target is given, there are too few queries, or a
            fitted candidate has no record.
        """
        budget.checked_target(quality_target, cost_target)
        if not self.is_fitted:
            raise NotFittedError("calibrate needs a fitted router: call fit first")
        candidates = dict(self._candidates)
        usual = self._knowledge.usual_kind  # it need not be chosen anew per fold
        held_out = judge(
            tabulate(records, tuple(candidates)),
            knowledge=self._knowledge,
            candidates=candidates,
            encoder=self.encoder,
            predict=lambda reading: self._ask(lambda d: d.predict(reading, None)),
            learn=lambda start, train: self._learned(
                start, train, candidates, predictor=usual
            )[0],
            seed=self._settings.seed,
        )
        found = budget.calibrate(
            held_out,
            quality_target=quality_target,
            cost_target=cost_target,
            seed=self._settings.seed,
        )
        if apply:
            self.willingness_to_pay = found.willingness_to_pay
        return found
