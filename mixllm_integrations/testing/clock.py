"""A clock that stands still until a test moves it."""

__all__ = ["ManualClock"]


class ManualClock:
    """Seconds that pass only when `advance` is called.

    Parameters
    ----------
    now
        What it shows first.

    Examples
    --------
    >>> clock = ManualClock()
    >>> clock.advance(2.5)
    >>> clock()
    2.5
    """

    __slots__ = ("now",)

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time it shows, in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Parameters
        ----------
        seconds
            How much; not negative.

        Raises
        ------
        ValueError
            If time were to run backwards.
        """
        if seconds < 0:
            raise ValueError(f"a clock cannot go back by {-seconds} s")
        self.now += seconds
