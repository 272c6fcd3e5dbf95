"""What a worker goes on from: all that another one had learned, up to an event.

Beside `sharing`, which hears the log of events. How far a log was heard is part of
a router's state, so that a restart neither misses nor repeats anything.
"""
# ruff: noqa: SLF001 - the other router is of this class, and nobody else has it

import math
import operator
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, Self

from numpy.typing import NDArray

from mixllm_integrations.core.errors import ConfigurationError, StateFormatError
from mixllm_integrations.core.forecast import Knowledge
from mixllm_integrations.core.handing_over import (
    digest_of,
    encoder_name,
    knowledge_digests,
    prices_of,
    unzipped,
    zipped,
)
from mixllm_integrations.core.learning import LearningPool
from mixllm_integrations.core.pending import PendingDecision
from mixllm_integrations.core.snapshot_online import warn_dropped
from mixllm_integrations.core.types import Candidate

__all__ = ["OTHER_HEADS", "ResumablePool", "sequence_from"]

OTHER_HEADS = -1  # a revision that no knowledge has: the quality is foreseen anew
_OUTDATED = -1  # a version that none has: its contexts mean nothing
_MUST_AGREE = ("l2", "forgetting", "binary_feedback")
_ERRORS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
_State = tuple[dict[str, Any], dict[str, NDArray[Any]]]


class ResumablePool(LearningPool):
    """Candidates that can go on from what another worker knows; see `Router`."""

    _heard: dict[str, int]
    _digests: tuple[Knowledge, str, str] | None = None

    @property
    def context_digest(self) -> str:
        """What context vectors mean: workers with the same one may share them."""
        return self._digests_of(self._knowledge)[0]

    @property
    def has_learned_online(self) -> bool:
        """Whether outcomes, feedback or signals have taught it anything."""
        with self._lock:
            seen = self._experience
            return bool(
                seen.replay.mark
                or any(r.count for r in (*seen.lengths.values(), *seen.costs.values()))
                or seen.reliability.state()  # binary feedback
                or seen.residuals.state()["moment"].any()
            )

    def snapshot(self, log: str) -> tuple[int, bytes]:
        """Return all that was learned, for workers that come later.

        Of decisions under way only those are in it of which something was told here
        that was not heard in a log yet; the others are found there.

        Parameters
        ----------
        log
            Identity of the log that goes on from there.

        Returns
        -------
        int
            The sequence of the last event that is in it.
        bytes
            A zip file, for `resume`.
        """
        with self._lock:
            heard = self._heard.get(log, 0)
            state = self._state(unheard=True)
        return heard, zipped(state)

    def resume(self, content: bytes) -> bool:
        """Take over what another worker had learned, instead of what is known here.

        Candidates, prices, settings and budgets stay those of this router. What
        was learned of candidates that it does not have is kept for their return;
        those that only it has start as newcomers. Decisions under way go on, but
        for adopted ones: the log that goes on from there brings them again. Not to
        be called while an event is heard: a refit may have to end first.

        Parameters
        ----------
        content
            What `snapshot` gave there.

        Returns
        -------
        bool
            False, and nothing has changed, if its contexts are not those of this
            router, or it learns by other rules or beside another prior.

        Raises
        ------
        StateFormatError
            If it is damaged; then nothing has changed, either.
        """
        state, arrays = unzipped(content)
        with self._fitting:
            try:
                other = self._restored(state, arrays)
            except StateFormatError:
                raise
            except _ERRORS as error:
                raise StateFormatError(
                    f"a snapshot cannot be used ({type(error).__name__}: {error}): "
                    "hear the log from its beginning instead"
                ) from error
            if other is None or other.context_digest != self.context_digest:
                return False
            with self._lock:
                self._take_over(other)
        return True

    def _restored(
        self, state: dict[str, Any], arrays: dict[str, NDArray[Any]]
    ) -> Self | None:
        """Return the router of a snapshot, by the settings of this one.

        ``None``: it means other contexts, or learns by other rules.
        """
        mine, theirs = asdict(self._settings), state["settings"]
        prior: Any = self._knowledge.prior
        said = encoder_name(self.encoder)
        if (
            any(mine[key] != theirs[key] for key in _MUST_AGREE)
            or {key: state["encoder"][key] for key in said} != said
            or state["prior"] != (prior and prior.revision)
        ):
            return None
        own = {"settings": mine, "spending": {}}
        return type(self)._of_state(
            {**state, **own, "exploration": {}},
            arrays,
            source="a snapshot",
            encoder=self.encoder,
            prior=prior or "shipped",
            clock=self._clock,
        )

    def _take_over(self, other: "ResumablePool") -> None:
        """Go on from what another one knows; the lock is held."""
        theirs, experience = other._candidates, other._experience
        for name, base in other._decider.bases.items():
            if experience.replay.labels(name):
                experience.bases.setdefault(name, base)
        before = {name: self._foreseen_by(name) for name in self._candidates}
        for name in [n for n in theirs if n not in self._candidates]:
            experience.remove(name)
        for name in [n for n in self._candidates if n not in theirs]:
            experience.add(name)
            experience.welcome(name)
        version, revision = self._knowledge.version, self._knowledge.revision
        knowledge = replace(other._knowledge, prior=self._knowledge.prior)
        self._refit_mark = other._refit_mark
        self._adopt(knowledge, experience)
        alike = {n for n, heads in before.items() if heads == self._foreseen_by(n)}
        for pending in self._ledger:
            is_alike = pending.candidate in alike and pending.revision == revision
            is_of_now = pending.version == version
            self._carry(pending, is_alike=is_alike, is_of_now=is_of_now)
        for name, candidate in self._candidates.items():
            if name in theirs:
                self._meet(candidate, theirs[name], other)
        self._ledger.take_over(other._ledger)
        since = [event for event in self._drifts if event not in other._drifts]
        self._drifts.clear()
        self._drifts.extend((*other._drifts, *since))
        self._heard |= other._heard

    def _carry(
        self, pending: PendingDecision, *, is_alike: bool, is_of_now: bool
    ) -> None:
        """Let one under way be judged by what is known from now on."""
        pending.version = self._knowledge.version if is_of_now else _OUTDATED
        pending.revision = self._knowledge.revision if is_alike else OTHER_HEADS
        if not is_alike:
            pending.predicted_output_tokens, pending.token_cost = 0.0, math.nan

    def _meet(self, here: Candidate, there: Candidate, other: "ResumablePool") -> None:
        """Take a candidate's speed over, and note where its prices differ."""
        if prices_of(here) != prices_of(there):
            other._ledger.reprice(here.name)
        first, per_token = other._waiting.speeds()[here.name]
        if here.time_to_first_token_seconds != there.time_to_first_token_seconds:
            first = None  # what is declared here is news
        if here.seconds_per_output_token != there.seconds_per_output_token:
            per_token = None
        self._waiting.set_speed(here.name, first, per_token)

    def _state(self, *, compact: bool = False, unheard: bool = False) -> _State:
        with self._lock:
            state, arrays = super()._state(compact=compact, unheard=unheard)
            state["heard"] = dict(self._heard)
            state["speeds"] = {n: list(s) for n, s in self._waiting.speeds().items()}
        return state, arrays

    def _restore(
        self,
        state: dict[str, Any],
        arrays: dict[str, NDArray[Any]],
        clock: Callable[[], float],
    ) -> None:
        super()._restore(state, arrays, clock)
        try:
            told = dict(state.get("heard") or {})
            self._heard = {str(log): sequence_from(n) for log, n in told.items()}
        except _ERRORS as error:
            instead = "only what comes from now on is learned"
            warn_dropped("how far logs were heard", str(error), instead)
        try:
            for name, speed in dict(state.get("speeds") or {}).items():
                self._waiting.set_speed(name, *speed)
        except _ERRORS as error:
            what, instead = "how fast candidates are", "it is measured anew"
            warn_dropped(what, str(error), instead)

    def _foreseen_by(self, name: str) -> str:
        """Return a digest of what a candidate's forecasts hang on; the lock is held.

        Its head, or what stands in for it; who else competes, where one that has
        few labels follows the others; and the prior.
        """
        heads, bases = self._knowledge.heads, self._decider.bases
        company: list[Any] = [bases.get(name)]
        if heads is not None and (bases or len(set(heads.n_labels.tolist())) > 1):
            company += [[n, bases.get(n)] for n in sorted(self._candidates)]
        prior = self._knowledge.prior
        own = self._digests_of(self._knowledge)[1]
        return digest_of([own, prior and prior.revision, company], {})

    def _digests_of(self, knowledge: Knowledge) -> tuple[str, str]:
        """Return digests of what contexts mean, and of the heads on them."""
        found = self._digests
        if found is None or found[0] is not knowledge:
            found = knowledge, *knowledge_digests(knowledge, self.encoder)
            self._digests = found
        return found[1], found[2]


def sequence_from(value: object) -> int:
    """Return the place of an event in a log, from 1 on; 0: before all of them.

    Parameters
    ----------
    value
        What the caller gave.

    Raises
    ------
    ConfigurationError
        If it is no such number.
    """
    try:
        place = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        place = -1
    if place < 0 or isinstance(value, bool):
        raise ConfigurationError(
            f"a sequence must be a whole number from 0 on, not {value!r}"
        )
    return place
