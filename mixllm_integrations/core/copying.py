"""A router in a folder, in a pickle, and as a copy: the same state each time.

What a router knows goes through `persistence`, never through the pickling of
its parts: so a pickle is checked like a folder, and one of a newer format is
refused.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import HIGHEST_PROTOCOL, Pickler, PicklingError
from typing import Any, Literal, Self, TypeVar

from numpy.typing import NDArray

from mixllm_integrations.core import persistence
from mixllm_integrations.core.encoder import (
    Encoder,
    SentenceTransformerEncoder,
    StaticEncoder,
)
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.forecast import Knowledge
from mixllm_integrations.core.prior import QualityPrior, shipped_prior

__all__ = ["Portable", "check_picklable"]

_Kind = TypeVar("_Kind", bound="Portable")
_State = tuple[dict[str, Any], dict[str, NDArray[Any]]]


class Portable(ABC):
    """What can be saved, pickled and copied whole, as `CandidatePool` can."""

    encoder: Encoder
    _knowledge: Knowledge
    _clock: Callable[[], float]

    @abstractmethod
    def _state(self, *, compact: bool = False, unheard: bool = False) -> _State:
        """Return all that outlives this object, as JSON and arrays."""

    @classmethod
    @abstractmethod
    def _of_state(
        cls,
        state: dict[str, Any],
        arrays: dict[str, NDArray[Any]],
        *,
        source: str,
        encoder: Encoder | None,
        prior: QualityPrior | Literal["shipped"],
        clock: Callable[[], float],
    ) -> Self:
        """Return what had that state; errors call it `source`."""

    def save(self, folder: str | Path, *, compact: bool = False) -> None:
        """Write everything that was learned to a folder, whole or not at all.

        Parameters
        ----------
        folder
            Where to; a router saved there before is replaced. Prompts are not
            in it.
        compact
            Leave out labels and context vectors, which only `Router.refit`
            needs: it then does nothing.

        Raises
        ------
        ConfigurationError
            If the folder holds something that is not a saved router.
        """
        persistence.write_folder(folder, *self._state(compact=compact))

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        encoder: Encoder | None = None,
        prior: QualityPrior | Literal["shipped"] = "shipped",
        clock: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Return the router that was saved in a folder.

        Parameters
        ----------
        folder
            Where from.
        encoder
            The encoder it was fitted with; ``None``: it is found by its name.
        prior
            The prior that it started from, if it was not the shipped one.
        clock
            Of the router.

        Raises
        ------
        ConfigurationError
            If there is no such folder, or the encoder is not to be had.
        StateFormatError
            If the folder is damaged, of a newer version, or of another encoder.
        """
        state, arrays = persistence.read_folder(folder)
        return cls._of_state(
            state,
            arrays,
            source=str(folder),
            encoder=encoder,
            prior=prior,
            clock=clock,
        )

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        """Give a pickle what `save` gives a folder: a router of its own comes back.

        Decisions that await their feedback go along, as into a folder: the
        pickle may be all that outlives this process. Where both live on, tell
        one of them; told to both, both learn. Calls under way stay behind, as
        their outcomes come here. The shipped encoder and models go by name;
        an encoder, a prior or a clock of one's own goes as it is. Prompts are
        not in the pickle. Like any pickle it can run code when it is read:
        from others, take folders only.

        Raises
        ------
        ConfigurationError
            If an encoder or a clock of one's own cannot be pickled.
        """
        encoder = None if _goes_by_name(self.encoder) else self.encoder
        prior = self._knowledge.prior
        is_own = prior is not None and prior is not shipped_prior()
        remedy = "keep the router with save(folder), and pass it to Router.load there"
        check_picklable(encoder, f"the encoder {self.encoder.id!r}", remedy)
        check_picklable(self._clock, "the clock of the router", remedy)
        given = {
            "encoder": encoder,
            "prior": prior if is_own else "shipped",
            "clock": self._clock,
        }
        return _unpickled, (type(self), persistence.packed(*self._state()), given)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return a router that goes on by itself from what this one knows.

        As `__reduce__`, but encoder and prior, which never change, and the
        clock, which is the world's, are shared.
        """
        files = persistence.packed(*self._state())
        given = {
            "encoder": self.encoder,
            "prior": self._knowledge.prior or "shipped",
            "clock": self._clock,
        }
        return _unpickled(type(self), files, given)

    def __copy__(self) -> Self:
        """Do the same: two routers cannot share half of what they learn."""
        return self.__deepcopy__()


def check_picklable(thing: object, what: str, remedy: str) -> None:
    """Raise if something cannot be pickled, and say what to do instead.

    Parameters
    ----------
    thing
        To be pickled. What fails only since it is a function or class without
        a name is let pass: cloudpickle, which joblib and Dask use, can do it.
    what
        What the error calls it.
    remedy
        What to do instead.

    Raises
    ------
    ConfigurationError
        If it cannot.
    """
    try:
        Pickler(_Nowhere(), protocol=HIGHEST_PROTOCOL).dump(thing)
    except (PicklingError, AttributeError):
        return
    except Exception as error:
        raise ConfigurationError(
            f"{what} cannot be pickled ({type(error).__name__}: {error}): {remedy}"
        ) from error


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: object) -> None:
        """Take bytes, or a buffer of an array's."""


def _goes_by_name(encoder: Encoder) -> bool:
    """Tell whether `load_encoder` finds the very same encoder elsewhere."""
    if type(encoder) is StaticEncoder:
        return encoder.folder is not None or encoder is StaticEncoder.load()
    return type(encoder) is SentenceTransformerEncoder


# Pickles name it: it stays where it is.
def _unpickled(
    kind: type[_Kind], files: Mapping[str, bytes], given: Mapping[str, Any]
) -> _Kind:
    source = f"a pickled {kind.__name__}"
    state, arrays = persistence.unpacked(files, source=source)
    return kind._of_state(state, arrays, source=source, **given)  # noqa: SLF001
