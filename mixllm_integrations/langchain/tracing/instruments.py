"""What spans and measurements are made with, once somebody wants them."""

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, Meter
    from opentelemetry.trace import Tracer

__all__ = ["Instruments", "ProviderWatch"]

_SCOPE = "mixllm_integrations"
_SCHEMA = "https://opentelemetry.io/schemas/1.41.0"
_SWITCH, _SWITCH_NAME = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "mixllm"
_API = ("opentelemetry.trace", "opentelemetry.metrics")

# Bounds of the histograms, as the conventions ask for.
_SECONDS = tuple(0.01 * 2**n for n in range(14))
_TOKENS = tuple(float(4**n) for n in range(14))


class Instruments(NamedTuple):
    """What spans and measurements are made with.

    Parameters
    ----------
    tracer
        Makes the spans.
    duration
        Histogram ``gen_ai.client.operation.duration``.
    tokens
        Histogram ``gen_ai.client.token.usage``.
    """

    tracer: "Tracer"
    duration: "Histogram"
    tokens: "Histogram"

    @classmethod
    def found(cls) -> "Instruments | None":
        """Return those of this process.

        Returns
        -------
        Instruments or None
            ``None`` as long as nobody has set a provider.
        """
        disabled = os.environ.get(_SWITCH, "").split(",")
        if _SWITCH_NAME in (name.strip() for name in disabled):
            return None
        # Who has set a provider has imported the interface.
        if sys.modules.keys().isdisjoint(_API):
            return None
        from opentelemetry import metrics, trace

        # Those of the interface itself record nothing, but keep each meter that they
        # are asked for, for ever.
        providers = trace.get_tracer_provider(), metrics.get_meter_provider()
        if all(type(one).__module__.startswith(_API) for one in providers):
            return None
        return cls.made_with(
            trace.get_tracer(_SCOPE, schema_url=_SCHEMA),
            metrics.get_meter(_SCOPE, schema_url=_SCHEMA),
        )

    @classmethod
    def made_with(cls, tracer: "Tracer", meter: "Meter") -> "Instruments":
        """Return those of given providers.

        Parameters
        ----------
        tracer
            Makes the spans.
        meter
            Makes the histograms.

        Returns
        -------
        Instruments
            New ones.
        """
        return cls(
            tracer,
            meter.create_histogram(
                "gen_ai.client.operation.duration",
                unit="s",
                description="GenAI operation duration.",
                explicit_bucket_boundaries_advisory=_SECONDS,
            ),
            meter.create_histogram(
                "gen_ai.client.token.usage",
                unit="{token}",
                description="Number of input and output tokens used.",
                explicit_bucket_boundaries_advisory=_TOKENS,
            ),
        )


class ProviderWatch:
    """Looks now and then whether the process has set a provider.

    Parameters
    ----------
    clock
        Seconds that never go backwards.
    interval_seconds
        How long to wait before looking again; asking the interface itself each
        time would take longer than the decision's bookkeeping.
    """

    __slots__ = ("_clock", "_due", "_found", "_interval")

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        interval_seconds: float = 1.0,
    ) -> None:
        self._clock = clock
        self._interval = interval_seconds
        self._due = float("-inf")
        self._found: Instruments | None = None

    def look(self) -> Instruments | None:
        """Return the instruments, once there are any.

        Returns
        -------
        Instruments or None
            Always the same ones from then on, as a provider stays.
        """
        if self._found is None and (now := self._clock()) >= self._due:
            self._due = now + self._interval
            self._found = Instruments.found()
        return self._found
