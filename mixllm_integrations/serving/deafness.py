"""Says in the log of Python when a log of events is not heard, and when it is again."""

import logging

__all__ = ["Deafness"]

_log = logging.getLogger(__name__)


class Deafness:
    """Whether the log could be read the last time; each change is said once.

    Attributes
    ----------
    is_failing
        Whether it could not.
    """

    __slots__ = ("is_failing",)

    def __init__(self) -> None:
        self.is_failing = False

    def began(self, error: Exception) -> None:
        """Note that the log could not be read."""
        if not self.is_failing:
            self.is_failing = True
            _log.warning(
                "what other workers learn is not heard: the store failed with %s; "
                "it is said when it is again",
                type(error).__name__,
            )

    def ended(self) -> None:
        """Note that it could."""
        if self.is_failing:
            self.is_failing = False
            _log.warning("what other workers learn is heard again")
