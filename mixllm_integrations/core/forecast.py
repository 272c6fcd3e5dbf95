"""Stages 3 to 5 as one: what was learned offline, and what it expects.

`Knowledge` is what a fit gives; it never changes. `Forecaster` applies it to
the candidates that compete now, with priors for those it does not know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from mixllm_integrations.core.context import ContextModel
from mixllm_integrations.core.encoder import Encoder
from mixllm_integrations.core.predictors.heads import (
    UNKNOWN_OUTPUT_TOKENS,
    CandidateHeads,
    prior_quality,
)
from mixllm_integrations.core.predictors.peers import Peers
from mixllm_integrations.core.pricing import (
    CostModel,
    ListPrices,
    fill_output_tokens,
    token_cost,
)
from mixllm_integrations.core.prior import QualityDepartures, QualityPrior
from mixllm_integrations.core.reading import Reading, read
from mixllm_integrations.core.records import RecordTable
from mixllm_integrations.core.traits import query_traits
from mixllm_integrations.core.types import Candidate, FloatArray, Outcome

__all__ = ["Forecast", "Forecaster", "Knowledge"]


@dataclass(frozen=True, slots=True, eq=False)
class Knowledge:
    """What was learned from records.

    Parameters
    ----------
    context
        From a reading to a context vector.
    heads, costs
        Of the candidates that were fitted, in the same order; ``None`` before
        a fit. Candidates that were removed since are still there.
    version
        Counts the fits of the context: what was learned under another version
        says nothing under this one.
    revision
        Counts the refits of the heads on one context.
    prior
        What is expected of a candidate without labels, query by query;
        ``None``: the same of every query.
    """

    context: ContextModel
    heads: CandidateHeads | None = None
    costs: CostModel | None = None
    version: int = 0
    prior: QualityPrior | None = None
    revision: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Candidates that were fitted."""
        return self.heads.names if self.heads else ()

    @property
    def leans(self) -> bool:
        """Whether some heads only say what to add to the prior."""
        return self.heads is not None and bool(self.heads.leans.any())

    @property
    def usual_kind(self) -> str | None:
        """Kind of most candidates' quality heads; ``None`` before a fit."""
        kinds = self.heads.quality.kinds if self.heads else []
        return max(kinds, key=kinds.count, default=None)

    def learned(
        self,
        table: RecordTable,
        candidates: Mapping[str, Candidate],
        *,
        encoder: Encoder,
        predictor: str,
        n_domains: int,
        seed: int,
    ) -> tuple["Knowledge", FloatArray]:
        """Return what is known after these records, and their contexts.

        Where some of the candidates that compete were fitted before and have
        no record now, the context stays as it is and only the candidates with
        records are fitted: a newcomer needs its own records alone.

        Parameters
        ----------
        table
            The records.
        candidates
            Those that compete, by name.
        encoder
            Gives the embeddings.
        predictor
            ``"auto"`` or a kind.
        n_domains
            The most domains there may be.
        seed
            Decides everything that is drawn.

        Returns
        -------
        Knowledge
            With a new version if the context was fitted anew.
        FloatArray
            Contexts of the table's queries, shape ``(n_queries, n_features)``.
        """
        reading = read(table.queries, encoder)
        absent = [n for n in self.names if n in candidates and n not in table.names]
        version = self.version
        if absent:
            context, contexts = self.context, self.context.training_contexts(reading)
        else:
            version += 1
            context, contexts = ContextModel.fit(
                reading,
                table.tags,
                query_traits(table.quality),
                encoder=encoder,
                n_domains=n_domains,
                seed=seed,
            )
        own = [candidates[name] for name in table.names]
        counted = reading.tokens.astype(np.float64)
        tokens = fill_output_tokens(table, counted, own)
        others = [n for n in self.names if absent and n not in table.names]
        heads = CandidateHeads.fit(
            table.names,
            contexts,
            table.quality,
            tokens,
            predictor=predictor,
            seed=seed,
            prior=self.prior,
            reading=reading,
        ).leaning(own, table.quality, known=self._means(others, candidates))
        costs = CostModel.fit(table, counted, tokens, own)
        if absent and self.heads and self.costs:
            kept = [self.names.index(n) for n in others]
            heads = self.heads.select(others).joined(heads)
            costs = self.costs.select(kept).joined(costs)
        return replace(
            self, context=context, heads=heads, costs=costs, version=version
        ), contexts

    def revised(self, heads: CandidateHeads, costs: CostModel) -> "Knowledge":
        """Return this knowledge with other heads on the same contexts.

        Parameters
        ----------
        heads, costs
            Of the same candidates, in the same order.
        """
        return replace(self, heads=heads, costs=costs, revision=self.revision + 1)

    def renamed(self, old: str, new: str) -> "Knowledge":
        """Return this knowledge with one candidate under another name.

        Parameters
        ----------
        old, new
            Its names; whoever had the new one is forgotten.
        """
        if self.heads is None or self.costs is None:
            return self
        kept = [name for name in self.heads.names if name != new]
        if not kept:
            return replace(self, heads=None, costs=None)
        heads = self.heads.select(kept)
        names = tuple(new if name == old else name for name in kept)
        costs = self.costs.select([self.heads.names.index(n) for n in kept])
        return replace(self, heads=replace(heads, names=names), costs=costs)

    def _means(
        self, names: Sequence[str], candidates: Mapping[str, Candidate]
    ) -> list[tuple[Candidate, float]]:
        """Return those of some names that compete, with their mean quality."""
        if not self.heads:
            return []
        quality = dict(zip(self.names, self.heads.mean_quality, strict=True))
        return [(candidates[n], float(quality[n])) for n in names if n in candidates]


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """What is expected of each candidate for each query.

    Parameters
    ----------
    quality, output_tokens, cost
        Shape ``(n_queries, n_candidates)``; quality of the offline heads or
        priors, cost in USD.
    input_tokens
        Given or counted, shape ``(n_queries,)``.
    """

    quality: FloatArray
    output_tokens: FloatArray
    cost: FloatArray
    input_tokens: FloatArray


class Forecaster:
    """Applies what is known to the candidates that compete now.

    Parameters
    ----------
    knowledge
        What was learned.
    candidates
        Those that compete, in declaration order.
    bases
        Mean quality of some of those without a head, instead of their priors.

    Attributes
    ----------
    bases
        Mean quality that is expected of those without a head.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        candidates: Sequence[Candidate],
        bases: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.knowledge = knowledge
        self.candidates = tuple(candidates)
        self._heads, self._fitted = knowledge.heads, np.zeros(0, dtype=np.intp)
        n = len(self.candidates)
        self._prior_tokens = np.full(n, UNKNOWN_OUTPUT_TOKENS)
        self._input_factor, self._cost_factor = np.ones(n), np.ones(n)
        self._fixed_cost = np.zeros(n)
        self._prices = ListPrices.of(self.candidates)
        known: list[tuple[Candidate, float]] = []
        if knowledge.heads and knowledge.costs:
            known = self._use(knowledge.heads, knowledge.costs)
        priors = {
            c.name: bases.get(c.name, _aligned(prior_quality(c, known), c, known))
            for c in self.candidates
        }
        headed = knowledge.names if known else ()
        self.bases = {n: q for n, q in priors.items() if n not in headed}
        self._prior_quality = np.array(list(priors.values()))
        self._peers, prior = None, knowledge.prior
        self._expected = prior.of(self._prior_quality) if prior else None
        self._departures: QualityDepartures | None = None
        if self._heads:
            heads, base = self._heads, self._prior_quality.copy()
            base[self._fitted] = np.clip(heads.mean_quality + heads.shift, 0.0, 1.0)
            if prior and heads.leans.any():
                self._departures = prior.of(heads.mean_quality, level=heads.level)
            peers = Peers.of(self._fitted, base, heads.n_labels)
            self._peers = peers if peers.are_needed else None
        self._all_fitted = self._fitted.size == n and n > 0

    def _use(
        self, heads: CandidateHeads, costs: CostModel
    ) -> list[tuple[Candidate, float]]:
        own = {c.name: i for i, c in enumerate(self.candidates)}
        names = [name for name in own if name in heads.names]
        columns = [heads.names.index(name) for name in names]
        self._heads = heads.select(names) if names else None
        self._fitted = np.array([own[name] for name in names], dtype=np.intp)
        if names:
            self._prior_tokens[:] = heads.mean_output_tokens[columns].mean()
        self._input_factor[self._fitted] = costs.input_factor[columns]
        self._cost_factor[self._fitted] = costs.cost_factor[columns]
        # A flat bill stands in for prices of 0, not beside prices given since.
        priced = token_cost(np.ones(1), np.ones(1), self.candidates) > 0
        fixed = np.where(priced[self._fitted], 0.0, costs.fixed_cost[columns])
        self._fixed_cost[self._fitted] = fixed
        means = heads.mean_quality[columns]
        return [
            (self.candidates[own[n]], float(q))
            for n, q in zip(names, means, strict=True)
        ]

    def forecast(
        self,
        reading: Reading,
        contexts: FloatArray,
        *,
        input_tokens: FloatArray | None = None,
    ) -> Forecast:
        """Return what is expected of each candidate for each query.

        Parameters
        ----------
        reading, contexts
            Of the queries.
        input_tokens
            Prompt lengths that the caller knows, shape ``(n_queries,)``, NaN
            where it does not.

        Notes
        -----
        Source: MixLLM §3.2: input tokens are known, output tokens predicted.
        """
        quality, tokens = self._quality_and_tokens(reading, contexts)
        counted = reading.tokens.astype(np.float64)
        inputs = counted[:, None] * self._input_factor
        if input_tokens is not None:
            given = np.isfinite(input_tokens)
            counted = np.where(given, input_tokens, counted)
            inputs[given] = input_tokens[given][:, None]
        with np.errstate(over="ignore", invalid="ignore"):
            cost = self._prices.cost(inputs, tokens)
            cost = cost * self._cost_factor + self._fixed_cost
        return Forecast(quality, tokens, cost, counted)

    def _quality_and_tokens(
        self, reading: Reading, contexts: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        heads, n = self._heads, len(contexts)
        if heads is None:
            tokens = np.tile(self._prior_tokens, (n, 1))
            if self._expected is None:
                return np.tile(self._prior_quality, (n, 1)), tokens
            return self._expected.quality(reading), tokens
        added = None
        if self._departures is not None:
            added = heads.leans * self._departures(reading)
        quality, tokens = heads.predict(contexts, reading.blank, added)
        if not self._all_fitted:
            own, tokens = tokens, np.tile(self._prior_tokens, (n, 1))
            tokens[:, self._fitted] = own
        if self._peers is not None:
            quality = self._peers.spread(quality)
        return quality, tokens

    def quality_at(self, contexts: FloatArray) -> FloatArray:
        """Return the quality that is expected where only the context is known.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``.

        Returns
        -------
        FloatArray
            Shape ``(n, n_candidates)``, without what a prior would read in the
            text.
        """
        heads = self._heads
        if heads is None:
            return np.tile(self._prior_quality, (len(contexts), 1))
        quality, _ = heads.predict(contexts, np.zeros(len(contexts), dtype=np.bool_))
        return quality if self._peers is None else self._peers.spread(quality)

    def billed(self, name: str, outcome: Outcome) -> float | None:
        """Return what a call will have cost, in USD; ``None`` if unknown.

        Parameters
        ----------
        name
            Who answered.
        outcome
            With its cost, or else with tokens.
        """
        if outcome.cost is not None:
            return float(outcome.cost)
        if outcome.output_tokens <= 0:
            return None
        for index, candidate in enumerate(self.candidates):
            if candidate.name == name:
                used = np.array([outcome.input_tokens, outcome.output_tokens], float)
                listed = token_cost(used[:1], used[1:], [candidate])[0]
                extra = self._fixed_cost[index]
                return float(listed * self._cost_factor[index] + extra)
        return None


def _aligned(
    prior: float, candidate: Candidate, known: Sequence[tuple[Candidate, float]]
) -> float:
    """Return a declared quality, moved as far as the others' turned out.

    What is published was measured on other queries than those at hand.
    """
    gaps = [q - c.prior_quality for c, q in known if c.prior_quality is not None]
    if candidate.prior_quality is None or not gaps:
        return prior
    return float(np.clip(prior + sum(gaps) / (len(gaps) + 1), 0.0, 1.0))
