"""The figures of `SessionTotals`, to be read by programs and by people."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixllm_integrations.langchain.callbacks.reports import SessionTotals

__all__ = ["figures_of", "text_of"]

_SUMMARISED = (
    "reference",
    "calls",
    "answered",
    "errors",
    "abandoned",
    "cached",
    "dry_runs",
    "failed_attempts",
    "cost",
    "input_tokens",
    "output_tokens",
    "mean_latency_seconds",
    "mean_time_to_first_token_seconds",
    "tokens_per_second",
    "savings",
    "savings_share",
    "unpriced",
    "shadow_calls",
    "shadow_cost",
    "shadow_savings",
    "feedback_count",
    "mean_feedback",
)


def figures_of(totals: "SessionTotals") -> dict[str, Any]:
    """Return all figures by name, as JSON can hold them.

    Parameters
    ----------
    totals
        Whose figures.

    Returns
    -------
    dict
        Unknown figures are ``None``.
    """
    figures: dict[str, Any] = {name: getattr(totals, name) for name in _SUMMARISED}
    figures["calls_by_candidate"] = dict(totals.calls_by_candidate)
    figures["cost_by_candidate"] = dict(totals.cost_by_candidate)
    return figures


def text_of(totals: "SessionTotals") -> str:
    """Return one line per figure that there is something to say about.

    Parameters
    ----------
    totals
        Whose figures.

    Returns
    -------
    str
        Labels and figures in two columns.
    """
    lines = ((label, say(totals)) for label, say in _LINES.items())
    said = {label: text for label, text in lines if text}
    width = max(map(len, said))
    return "\n".join(f"{label:{width}}  {text}" for label, text in said.items())


def _counts(totals: "SessionTotals") -> str:
    special = {
        "failed": totals.errors,
        "abandoned": totals.abandoned,
        "cached": totals.cached,
    }
    told = ", ".join(f"{count} {name}" for name, count in special.items() if count)
    return f"{totals.calls:,} ({told})" if told else f"{totals.calls:,}"


def _candidates(totals: "SessionTotals") -> str:
    often = sorted(totals.calls_by_candidate.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count:,}" for name, count in often)


def _savings(totals: "SessionTotals") -> str:
    if totals.reference is None:
        return ""
    saved, share = totals.savings, totals.savings_share
    told = "unknown" if saved is None else _usd(saved)
    if share is not None:
        told += f" ({share:.1%})"
    told += f" against {totals.reference}"
    missing = totals.unpriced
    return f"{told}; {missing:,} calls without a price for it" if missing else told


def _shadow(totals: "SessionTotals") -> str:
    saved = totals.shadow_savings
    if saved is None:
        return ""
    return f"would have saved {_usd(saved)} in {totals.shadow_calls:,} calls"


def _feedback(totals: "SessionTotals") -> str:
    mean = totals.mean_feedback
    return "" if mean is None else f"{mean:.2f} mean of {totals.feedback_count:,}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:,.3f} s"


def _speed(totals: "SessionTotals") -> str:
    speed = totals.tokens_per_second
    return "" if speed is None else f"{speed:,.1f} tokens/s"


def _usd(amount: float) -> str:
    """Return an amount that can be read: one prompt costs millionths."""
    return f"{amount:,.2f} USD" if abs(amount) >= 1 else f"{amount:.6f} USD"


_LINES: "dict[str, Callable[[SessionTotals], str]]" = {
    "calls": _counts,
    "dry runs": lambda t: f"{t.dry_runs:,}" if t.dry_runs else "",
    "candidates": _candidates,
    "failed attempts": lambda t: f"{t.failed_attempts:,}" if t.failed_attempts else "",
    "cost": lambda t: _usd(t.cost),
    "tokens": lambda t: f"{t.input_tokens:,} in, {t.output_tokens:,} out",
    "latency": lambda t: _seconds(t.mean_latency_seconds),
    "first token": lambda t: _seconds(t.mean_time_to_first_token_seconds),
    "speed": _speed,
    "savings": _savings,
    "shadow": _shadow,
    "feedback": _feedback,
}
