"""Beneath stage 1: many texts go through arrays some at a time."""

from collections.abc import Iterator

__all__ = ["chunks"]

_TOGETHER = 128  # texts: what they need still fits the cache of a processor


def chunks(n_texts: int) -> Iterator[slice]:
    """Yield slices that cover so many texts, one after the other.

    Parameters
    ----------
    n_texts
        How many in all; 0: nothing is yielded.

    Examples
    --------
    >>> list(chunks(200))
    [slice(0, 128, None), slice(128, 256, None)]
    """
    for start in range(0, n_texts, _TOGETHER):
        yield slice(start, start + _TOGETHER)
