"""What a router learns from labelled answers, all at once: fit and calibrate.

`router` adds what it does query by query.
"""

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core import budget
from mixllm_integrations.core.drift import DriftEvent
from mixllm_integrations.core.errors import NotFittedError, UnknownCandidateError
from mixllm_integrations.core.forecast import Knowledge
from mixllm_integrations.core.judging import judge
from mixllm_integrations.core.parallel import alone
from mixllm_integrations.core.pool import CandidatePool
from mixllm_integrations.core.reading import read
from mixllm_integrations.core.records import RecordTable, tabulate
from mixllm_integrations.core.refitting import refitted
from mixllm_integrations.core.strengths import Strengths, strengths_of
from mixllm_integrations.core.types import (
    Calibration,
    Candidate,
    FloatArray,
    RoutingRecord,
)

__all__ = ["LearningPool"]

_LOG = logging.getLogger("mixllm_integrations")


class LearningPool(CandidatePool):
    """Candidates of which much is learned from records; see `Router`."""

    _refit_is_running = False

    def after_fork(self, *, in_child: bool) -> None:
        """Go on after `before_fork`; a refit goes on in the parent alone.

        Parameters
        ----------
        in_child
            Whether this is the new process.
        """
        if in_child:
            self._refit_is_running = False
        super().after_fork(in_child=in_child)

    @property
    def refused_updates(self) -> int:
        """How many updates were refused, as a matrix would have become indefinite.

        Anything but 0 is a sign of contexts or weights that cannot be right.
        """
        return self._experience.refused

    def fit(self, records: Iterable[RoutingRecord], *, progress: bool = False) -> Self:
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

        Notes
        -----
        ``joblib.parallel_config`` around it says where its parts are run: more
        threads, processes, a Dask or Ray cluster. What is learned is the same to
        the last bit on processors of one kind.
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
                experience.start(
                    names,
                    contexts,
                    table.quality[:, here],
                    table.output_tokens[:, here],
                )
                self._ledger.outdate(names)
                if knowledge.version != before.version:
                    self._refit_mark = 0
                self._adopt(knowledge, experience)
        _LOG.log(level, "fitted in %.1f s", time.perf_counter() - began)
        return self

    def refit(self) -> bool:
        """Fit the quality heads again, on the labels and all that was observed since.

        Contexts stay as they are, so no prompts are needed. Decisions go on
        meanwhile; the new heads take over in one step, and learn what was
        observed while they were fitted.

        Returns
        -------
        bool
            Whether there was anything to learn. A router that was never fitted
            has no heads, and one from a compact folder not the labels to fit
            them: both learn by feedback alone.
        """
        with self._fitting:
            with self._lock:
                before, candidates = self._knowledge, dict(self._candidates)
                decider, experience = self._decider, self._experience
                mark, n_renamed = self._refit_mark, len(self._renamed)
                levels = dict(experience.levels)
                is_new = experience.replay.mark != mark
                competes = any(name in candidates for name in before.names)
                if not (competes and is_new and experience.replay.is_whole):
                    self._refit_mark = experience.replay.mark
                    return False
                # Copies: what takes long must hold up no decision.
                replay, known = experience.replay.copied(), experience.designs.names
                own = [name for name in candidates if name in known]
                corrected = experience.frozen_corrections(own)
            table = replay.table(tuple(candidates))
            expected = decider.quality_at(table.contexts)
            here = [table.names.index(name) for name in own]
            scores = np.zeros(expected.shape)
            corrections, scores[:, here] = corrected(table.contexts)
            expected[:, here] += corrections
            # A score comes on top of whatever the new heads say.
            table = replace(table, quality=table.quality - scores)
            expected -= scores
            knowledge = refitted(
                before,
                table,
                np.clip(expected, 0.0, 1.0),
                candidates,
                seed=self._settings.seed,
            )
            with self._lock:
                self._refit_mark = table.mark
                fresh = [name for name in table.names if name in knowledge.names]
                for old, new in self._renamed[n_renamed:]:
                    knowledge = knowledge.renamed(old, new)
                    fresh = [new if name == old else name for name in fresh]
                    levels[new] = levels.pop(old, 0.0)
                self._adopt(knowledge, self._experience)
                self._experience.rebase(
                    knowledge, fresh, table.mark, levels, self._expected
                )
                for name in set(fresh) - set(before.names):
                    self._ledger.reprice(name, lengths=True)
        _LOG.debug("refitted on %d queries", len(table.contexts))
        return True

    def has_seen(self, queries: Sequence[str]) -> NDArray[np.bool_]:
        """Tell which queries the router was fitted on.

        What it says of those is too good to judge it by.

        Parameters
        ----------
        queries
            Texts.

        Returns
        -------
        NDArray[np.bool_]
            Shape ``(n_queries,)``; False for all before a fit.
        """
        if not self.is_fitted:
            return np.zeros(len(queries), dtype=np.bool_)
        return self._knowledge.context.has_seen(read(queries, self.encoder))

    def about(self, query: str) -> dict[str, float]:
        """Return what a query is about: the probability of each domain.

        Parameters
        ----------
        query
            Any text.

        Returns
        -------
        dict of str to float
            The likeliest first; empty where the router knows no domains.
        """
        known = self._knowledge.context
        posterior = known.posterior(read([query], self.encoder))
        if posterior is None or known.domains is None:
            return {}
        pairs = zip(known.domains.names, posterior[0].tolist(), strict=True)
        return dict(sorted(pairs, key=lambda pair: -pair[1]))

    def strengths(
        self, candidate: str, queries: Sequence[str] | None = None
    ) -> Strengths:
        """Return where a candidate is good, beside the best of the others.

        Parameters
        ----------
        candidate
            Its name.
        queries
            Texts to look at; ``None``: those that the router was fitted on and has
            met since, whose contexts it keeps.

        Raises
        ------
        UnknownCandidateError
            If the router has no such candidate.
        NotFittedError
            If the router was not fitted, or keeps no contexts and is given no
            queries.
        """
        if candidate not in self._candidates:
            raise UnknownCandidateError(candidate, self._candidates)
        if not self.is_fitted:
            raise NotFittedError("strengths need a fitted router: call fit first")
        with self._lock:
            names = tuple(self._candidates)
            known = self._knowledge.context
            if queries is None:
                contexts = self._experience.replay.table(names).contexts
        if queries is not None:
            contexts = known.contexts(read(queries, self.encoder))
        if not len(contexts):
            raise NotFittedError(
                "the router keeps no queries to show strengths on: pass some"
            )
        with self._lock:
            quality = self._decider.quality_at(contexts)
            quality = quality + self._experience.corrections(contexts, names)
        return strengths_of(candidate, names, np.clip(quality, 0, 1), contexts, known)

    def _learned(
        self,
        start: Knowledge,
        table: RecordTable,
        candidates: dict[str, Candidate],
        *,
        predictor: str | None = None,
    ) -> tuple[Knowledge, FloatArray]:
        return start.learned(
            table,
            candidates,
            encoder=self.encoder,
            predictor=predictor or self._settings.predictor,
            n_domains=self._settings.n_domains,
            seed=self._settings.seed,
        )

    def _note(self, *events: DriftEvent | None) -> None:
        """Keep alarms, and say them in the log; the lock is held."""
        for event in events:
            if event is not None:
                self._drifts.append(event)
                _LOG.warning("%s", event)

    def _refit_if_due(self) -> None:
        """Start a refit in the background after every so many observations."""
        every = self._settings.refit_every
        if every is None or self._experience.replay.mark - self._refit_mark < every:
            return
        with self._lock:
            if self._refit_is_running or not self.is_fitted:
                return
            self._refit_is_running = True
        # A daemon: a process that ends does not wait for what can be done again.
        threading.Thread(target=self._refit_once, name="refit", daemon=True).start()

    def _refit_once(self) -> None:
        try:
            alone(self.refit)  # nobody asked: the other cores are the traffic's
        except Exception:  # noqa: BLE001 - nobody is there to catch it
            _LOG.exception("a refit failed; the router goes on with the old heads")
            with self._lock:
                self._refit_mark = self._experience.replay.mark
        finally:
            self._refit_is_running = False

    def _expected(self, name: str, contexts: FloatArray) -> FloatArray:
        """Return the quality that the offline heads expect of one candidate."""
        column = list(self._candidates).index(name)
        return self._decider.quality_at(contexts)[:, column]

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
