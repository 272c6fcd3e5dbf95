"""LangSmith: what people say there of an answer teaches the router, too.

LangSmith files feedback under runs. It is matched to decisions by the ids of the
chain run, of the run around it and of the LLM run, so calls have to be traced.
"""

import asyncio
import logging
import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from uuid import UUID

from pydantic import ValidationError

from mixllm_integrations.core.errors import ConfigurationError, UnknownDecisionError
from mixllm_integrations.core.types import FEEDBACK_KINDS, FeedbackKind

if TYPE_CHECKING:
    from langsmith import Client
    from langsmith.schemas import Feedback

__all__ = ["LangSmithFeedback", "LatestRuns", "MirrorCounts", "Teachable"]

_log = logging.getLogger(__name__)

Scale: TypeAlias = tuple[float, float]
Meaning: TypeAlias = tuple[FeedbackKind, Scale | None]

# Their ids stand in the address of the request, which must stay below 8 kB.
_RUNS_PER_REQUEST = 100
# As many as LangSmith keeps: what is pulled again is what was sent.
_DECIMALS = 4


class LatestRuns(Protocol):
    """The ids of runs in which something was decided."""

    def latest(self, count: int) -> Sequence[UUID]:
        """Return some of them, the latest ones."""


class Teachable(Protocol):
    """What this module needs of a routed model."""

    @property
    def run_ids(self) -> LatestRuns:
        """The runs that it remembers."""

    def record_feedback(
        self,
        answer: object,
        reward: float,
        *,
        kind: FeedbackKind = "refined",
        source: str | None = None,
    ) -> bool:
        """Learn; see `MixLLMChatModel.record_feedback`."""


@dataclass(frozen=True, slots=True)
class MirrorCounts:
    """What became of feedback.

    Parameters
    ----------
    recorded
        New to the router.
    repeated
        The router had it, or one of that kind for that answer, already.
    unknown_runs
        The run is none of this model's, or it is too old.
    unusable
        No score, a score out of range, or a key that is not mirrored.
    """

    recorded: int = 0
    repeated: int = 0
    unknown_runs: int = 0
    unusable: int = 0


class LangSmithFeedback:
    """Mirrors LangSmith feedback into the router of a model. Safe in threads.

    Parameters
    ----------
    model
        A `MixLLMChatModel`.
    client
        A ``langsmith.Client``.
    keys
        Which keys teach, and how: from the key to ``("refined", None)`` or
        ``("binary", None)`` and, in place of ``None``, the worst and the best
        score if these are not 0 and 1, as in ``("refined", (1, 5))`` for stars.
        ``None``: all keys teach whose scores are in [0, 1]; those of exactly 0
        and 1 count as binary. A router takes one feedback of a kind per answer:
        choose one key if there are several.
    source
        What the router is told of the origin, before a colon and the key.

    Raises
    ------
    ConfigurationError
        If `keys` cannot be used.

    Examples
    --------
    >>> from langsmith import Client
    >>> from mixllm_integrations.langchain import MixLLMChatModel
    >>> def thumbs_up(model: MixLLMChatModel, client: Client, run_id: UUID) -> None:
    ...     LangSmithFeedback(model, client).create_feedback(
    ...         run_id, "thumbs", score=True
    ...     )
    """

    def __init__(
        self,
        model: Teachable,
        client: "Client",
        *,
        keys: Mapping[str, Meaning] | None = None,
        source: str = "langsmith",
    ) -> None:
        self._model = model
        self._client = client
        self._keys = None if keys is None else _checked(keys)
        self._source = source
        self._lock = threading.Lock()
        self._counts = MirrorCounts()
        self._is_away = False

    @property
    def counts(self) -> MirrorCounts:
        """What became of all feedback so far."""
        return self._counts

    def create_feedback(
        self,
        run_id: UUID | str | None = None,
        key: str = "unnamed",
        *,
        score: float | None = None,
        value: Any = None,  # noqa: ANN401 - what the client takes
        **kwargs: Any,  # noqa: ANN401
    ) -> "Feedback":
        """Tell LangSmith and the router how good an answer was.

        The router is told first: it has learned even if LangSmith is away.

        Parameters
        ----------
        run_id
            Run of the answer: the routed call's, the one around it, or the LLM
            run in it; ``None``: `trace_id` in `kwargs`.
        key
            What is judged.
        score
            How good it was; without it the router learns nothing.
        value, **kwargs
            As for ``langsmith.Client.create_feedback``.

        Returns
        -------
        langsmith.schemas.Feedback
            What the client returned.

        Raises
        ------
        Exception
            The client's, for example if LangSmith cannot be reached.
        """
        judged = run_id or kwargs.get("trace_id")
        if judged is not None:
            self._record(judged, key, score)
        return self._client.create_feedback(
            run_id, key, score=score, value=value, **kwargs
        )

    async def acreate_feedback(
        self,
        run_id: UUID | str | None = None,
        key: str = "unnamed",
        **kwargs: Any,  # noqa: ANN401
    ) -> "Feedback":
        """Do the same as `create_feedback`, on a thread of its own."""
        return await asyncio.to_thread(self.create_feedback, run_id, key, **kwargs)

    def pull(
        self, run_ids: Iterable[UUID | str] | None = None, *, max_runs: int = 1_000
    ) -> int:
        """Record the feedback that was given in LangSmith itself.

        Call it from a scheduler, every few minutes: what was recorded before
        changes nothing. If LangSmith is away this is said once in the log, and
        the next call tries again.

        Parameters
        ----------
        run_ids
            Which runs to ask for; ``None``: the latest ones of the model.
        max_runs
            How many these are at most; a routed call has up to three.

        Returns
        -------
        int
            How many were new to the router.
        """
        if run_ids is None:
            run_ids = self._model.run_ids.latest(max_runs)
        rest = iter(run_ids)
        new = 0
        while some := list(islice(rest, _RUNS_PER_REQUEST)):
            try:
                found = list(self._listed(some))
            except Exception as error:  # noqa: BLE001 - a scheduler must go on
                self._away(error)
                break
            self._is_away = False
            # The first one of a kind teaches, whatever the order of the list.
            for feedback in sorted(found, key=attrgetter("created_at")):
                run_id = feedback.run_id or feedback.trace_id
                if run_id is not None:
                    new += self._record(run_id, feedback.key, feedback.score)
        return new

    async def apull(
        self, run_ids: Iterable[UUID | str] | None = None, *, max_runs: int = 1_000
    ) -> int:
        """Do the same as `pull`, on a thread of its own."""
        return await asyncio.to_thread(self.pull, run_ids, max_runs=max_runs)

    def _listed(self, run_ids: Sequence[UUID | str]) -> Iterator["Feedback"]:
        """Yield the feedback on some runs; one that is damaged hides no other."""
        keys = None if self._keys is None else list(self._keys)
        try:
            yield from list(
                self._client.list_feedback(run_ids=run_ids, feedback_key=keys)
            )
        except ValidationError:
            if len(run_ids) > 1:
                middle = len(run_ids) // 2
                yield from self._listed(run_ids[:middle])
                yield from self._listed(run_ids[middle:])
            else:
                self._count("unusable")
                _log.debug("the feedback on run %s cannot be read", run_ids[0])

    def _record(self, run_id: UUID | str, key: str, score: object) -> bool:
        judged = self._judged(key, score)
        if judged is None:
            self._count("unusable")
            _log.debug("feedback %r on run %s teaches nothing", key, run_id)
            return False
        reward, kind = judged
        try:
            new = self._model.record_feedback(
                _uuid(run_id), reward, kind=kind, source=f"{self._source}:{key}"
            )
        except UnknownDecisionError:
            self._count("unknown_runs")
            _log.debug("feedback %r on run %s: no such decision", key, run_id)
            return False
        self._count("recorded" if new else "repeated")
        return new

    def _judged(self, key: str, score: object) -> tuple[float, FeedbackKind] | None:
        """Return a score as a reward, with its kind; ``None`` if it is none."""
        meaning: tuple[FeedbackKind | None, Scale | None] | None = (None, None)
        if self._keys is not None:
            meaning = self._keys.get(key)
        if meaning is None or not isinstance(score, int | float):
            return None
        kind, scale = meaning
        reward = round(float(score), _DECIMALS)
        if scale is not None:
            worst, best = scale
            reward = (reward - worst) / (best - worst)
        if not 0.0 <= reward <= 1.0:  # nor is it a number that is none
            return None
        return reward, kind or ("binary" if reward in (0.0, 1.0) else "refined")

    def _count(self, what: str) -> None:
        with self._lock:
            counts = self._counts
            self._counts = replace(counts, **{what: getattr(counts, what) + 1})

    def _away(self, error: Exception) -> None:
        level = logging.DEBUG if self._is_away else logging.WARNING
        self._is_away = True
        _log.log(
            level,
            "no feedback could be pulled from LangSmith (%s); it is tried again at the "
            "next call",
            type(error).__name__,
        )


def _checked(keys: Mapping[str, Meaning]) -> dict[str, Meaning]:
    """Return keys with their meanings, if these can be used."""
    if not isinstance(keys, Mapping):
        raise ConfigurationError(
            'keys must be a mapping such as {"thumbs": ("binary", None)}, not a '
            f"{type(keys).__name__}"
        )
    return {key: _checked_meaning(key, meaning) for key, meaning in keys.items()}


def _checked_meaning(key: str, meaning: object) -> Meaning:
    if not isinstance(meaning, tuple | list) or len(meaning) != 2:
        raise ConfigurationError(
            f"keys[{key!r}] must be a kind and a scale, such as "
            f'("refined", (1, 5)) or ("binary", None), not {meaning!r}'
        )
    kind, scale = meaning
    if kind not in FEEDBACK_KINDS:
        raise ConfigurationError(
            f'keys[{key!r}] must be of kind "refined" or "binary", not {kind!r}'
        )
    if scale is None:
        return kind, None
    try:
        worst, best = map(float, scale)
    except (TypeError, ValueError):
        worst = best = math.nan
    if not (math.isfinite(worst) and math.isfinite(best)) or worst == best:
        raise ConfigurationError(
            f"the scale of keys[{key!r}] must be the worst and the best score, two "
            f"different numbers, not {scale!r}"
        )
    return kind, (worst, best)


def _uuid(run_id: UUID | str) -> UUID | str:
    """Return a run id as the client reads it, who takes more ways of writing."""
    try:
        return UUID(str(run_id))
    except ValueError:
        return run_id
