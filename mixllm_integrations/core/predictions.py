"""What was expected of each candidate, kept as one array until it is asked for.

Beside `decide`, which makes one for every decision.
"""

from collections.abc import Iterator, Mapping

from mixllm_integrations.core.types import FloatArray, Prediction

__all__ = ["N_FIELDS", "Predictions"]

N_FIELDS = len(Prediction.__slots__)


class Predictions(Mapping[str, Prediction]):
    """What was expected of each candidate; an entry is made when it is asked for.

    Parameters
    ----------
    names
        The candidates.
    columns
        One row per field of `Prediction`, in its order, one column per name.
    """

    __slots__ = ("_columns", "_names")

    def __init__(self, names: tuple[str, ...], columns: FloatArray) -> None:
        self._names, self._columns = names, columns

    def __getitem__(self, name: str) -> Prediction:
        try:
            index = self._names.index(name)
        except ValueError:
            raise KeyError(name) from None
        return Prediction(*self._columns[:, index].tolist())

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return repr(dict(self))
