"""A console on which no name or text of a file can do more than be read.

Names of candidates and data sets come from files and logs. Where they hold
escape sequences or Rich's markup, a terminal would do what they say.
"""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

__all__ = ["PlainConsole", "printable"]

_CONTROLS = {*range(32), 127, *range(128, 160)} - {ord("\t"), ord("\n")}
# They turn the direction in which a line is written.
_TURNS = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_SURROGATES = range(0xD800, 0xE000)
_TABLE = dict.fromkeys([*_CONTROLS, *_TURNS, *_SURROGATES], "\ufffd")


def printable(text: str) -> str:
    """Return a text with a sign in the place of whatever a terminal would obey.

    Parameters
    ----------
    text
        Any text.

    Examples
    --------
    >>> printable("red" + chr(27) + "[2J") == "red" + chr(0xFFFD) + "[2J"
    True
    """
    return text.translate(_TABLE)


class PlainConsole(Console):
    """Rich's console without markup, and without control characters in texts.

    Parameters
    ----------
    options
        As Rich takes them.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**{"markup": False, "emoji": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401
        """Return a text as it is laid out."""
        return super().render_str(printable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Return the pieces that are written, whatever they were made from."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield segment._replace(text=printable(segment.text))
