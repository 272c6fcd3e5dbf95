"""What the library logs, on standard error: for people, or one JSON object a line."""

import json
import logging
import sys
from datetime import UTC, datetime

from mixllm_integrations.plots.console import printable

__all__ = ["JsonLines", "log_to_stderr", "unlog"]

_OWN = "mixllm_integrations"
_PLAIN = "%(levelname)s %(name)s: %(message)s"
_USUAL = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


class JsonLines(logging.Formatter):
    """One JSON object a line: when, how bad, who, what, and with which values.

    ``event`` is the message without its values, so that lines of one kind have one
    name; ``values`` are what belongs into it, ``message`` is both together.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line.

        Parameters
        ----------
        record
            What was logged.
        """
        values = record.args if isinstance(record.args, tuple) else [record.args]
        told: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": str(record.msg),
            "values": list(values) if record.args else [],
            "message": record.getMessage(),
        }
        told |= {k: v for k, v in record.__dict__.items() if k not in _USUAL}
        if record.exc_info and record.exc_info[0] is not None:
            told["exception"] = record.exc_info[0].__name__
            told["trace"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


class _Plain(logging.Formatter):
    """Text on which a terminal obeys nothing that a value holds."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def log_to_stderr(verbosity: int, *, as_json: bool) -> logging.Handler:
    """Write what the library logs to standard error.

    Parameters
    ----------
    verbosity
        0: warnings, 1: what is done, 2: everything.
    as_json
        One JSON object a line instead of text.

    Returns
    -------
    logging.Handler
        What writes it.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if as_json else _Plain(_PLAIN))
    log = logging.getLogger(_OWN)
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    log.setLevel(levels[min(verbosity, len(levels) - 1)])
    log.addHandler(handler)
    return handler


def unlog(handler: logging.Handler) -> None:
    """Write to standard error no more.

    Parameters
    ----------
    handler
        From `log_to_stderr`.
    """
    log = logging.getLogger(_OWN)
    log.removeHandler(handler)
    log.setLevel(logging.NOTSET)
