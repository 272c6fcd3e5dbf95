"""Which decision a run belongs to, so that feedback can name the run."""

import re
from collections import OrderedDict
from itertools import islice
from uuid import UUID
from weakref import WeakKeyDictionary

from mixllm_integrations.core.checks import number_between
from mixllm_integrations.core.errors import UnknownDecisionError
from mixllm_integrations.core.forking import forkable_lock
from mixllm_integrations.serving.dispatch import Dispatcher
from mixllm_integrations.serving.feedback import record_of

__all__ = ["RunIds", "run_ids_of"]

# A UUID with its dashes, which the id of a decision never has. LangChain puts that
# of the LLM run into the id of a message that has none of its own, LlamaIndex the
# name of the method before that of a span.
_WRITTEN = re.compile(
    r"(?:lc_run--|[\w.<>]+-)?([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
    r"(?:-\d+)?",
    re.IGNORECASE,
)


class RunIds:
    """Remembers the decisions of the latest runs. Safe in threads.

    Parameters
    ----------
    capacity
        How many run ids are kept, those noted last. A call has up to three.

    Raises
    ------
    ConfigurationError
        If `capacity` is less than 1.

    Examples
    --------
    >>> runs, run_id = RunIds(), UUID("00000000-0000-4000-8000-000000000001")
    >>> runs.note("d1", run_id, None)
    >>> runs.decision_of(run_id), runs.decision_of(f"lc_run--{run_id}")
    ('d1', 'd1')
    """

    def __init__(self, capacity: int = 60_000) -> None:
        self._capacity = number_between(capacity, "capacity", low=1)
        self._lock = forkable_lock()
        # Keys are the numbers of the ids: a UUID object is thrice as large.
        self._decisions: OrderedDict[int, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._decisions)

    def note(self, decision_id: str, *run_ids: UUID | None) -> None:
        """Remember the decision that was made in some runs.

        A run may hold several routed calls, as that of a chain or an agent
        does: the decision noted last is the one that feedback on it reaches.

        Parameters
        ----------
        decision_id
            Which decision.
        *run_ids
            LangChain's chain run of the call, its parent, its LLM run; LlamaIndex's
            span and event. ``None``: no such run.
        """
        with self._lock:
            for run_id in run_ids:
                if run_id is not None:
                    self._decisions[run_id.int] = decision_id
                    self._decisions.move_to_end(run_id.int)
            while len(self._decisions) > self._capacity:
                self._decisions.popitem(last=False)

    def decision_of(self, run_id: UUID | str) -> str | None:
        """Return the decision that was made in a run.

        Parameters
        ----------
        run_id
            A UUID, with dashes if it is a string, or the id of a message or a span
            that was made from it.

        Returns
        -------
        str or None
            Id of the decision; ``None`` if the run is unknown, or not known
            any more, or if this is no run id.
        """
        number = _number_of(run_id)
        with self._lock:
            return None if number is None else self._decisions.get(number)

    def latest(self, count: int) -> list[UUID]:
        """Return the runs noted last, the latest first.

        Parameters
        ----------
        count
            How many at most.

        Returns
        -------
        list of UUID
            All kinds of runs.
        """
        with self._lock:
            numbers = list(islice(reversed(self._decisions), count))
        return [UUID(int=number) for number in numbers]

    def resolve(self, answer: object) -> object:
        """Return what feedback is about, with a run id replaced by its decision.

        Parameters
        ----------
        answer
            A run id, or anything else that feedback may be given on. A message
            that has lost its routing record is found by its id.

        Returns
        -------
        object
            Id of the decision; `answer` itself if it names no run.

        Raises
        ------
        UnknownDecisionError
            If it is the id of a run in which no decision is known.
        """
        if isinstance(answer, UUID | str):
            if _number_of(answer) is None:
                return answer
            decision_id = self.decision_of(answer)
            if decision_id is None:
                raise UnknownDecisionError(str(answer))
            return decision_id
        written = getattr(answer, "id", None)
        if isinstance(written, str) and record_of(answer) is None:
            return self.decision_of(written) or answer
        return answer


# Models that are rebuilt for each call share a dispatcher, and so their run ids.
_KNOWN: "WeakKeyDictionary[Dispatcher, RunIds]" = WeakKeyDictionary()
_KNOWN_LOCK = forkable_lock()


def run_ids_of(dispatcher: Dispatcher) -> RunIds:
    """Return the run ids of all models that share a dispatcher.

    Parameters
    ----------
    dispatcher
        Who starts their calls.

    Returns
    -------
    RunIds
        The same object each time.
    """
    with _KNOWN_LOCK:
        return _KNOWN.setdefault(dispatcher, RunIds())


def _number_of(run_id: UUID | str) -> int | None:
    if isinstance(run_id, UUID):
        return run_id.int
    written = _WRITTEN.fullmatch(run_id)
    return None if written is None else UUID(written[1]).int
