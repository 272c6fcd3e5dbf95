"""Runs the parts of the measurement under load, in the long or the short form."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixllm_integrations.benchmark.load.chaos import run_chaos
from mixllm_integrations.benchmark.load.places import Databases
from mixllm_integrations.benchmark.load.rates import (
    RatePlan,
    measure_rates,
    usable_cores,
)
from mixllm_integrations.benchmark.load.results import LoadResult
from mixllm_integrations.benchmark.load.soak import measure_soak
from mixllm_integrations.benchmark.overhead import machine_facts
from mixllm_integrations.benchmark.versions import package_versions
from mixllm_integrations.core.errors import ConfigurationError

__all__ = ["LONG", "PARTS", "SHORT", "LoadPlan", "run_load"]

PARTS = ("rates", "soak", "chaos")
_USED = ("langchain-core", "langchain-openai", "SQLAlchemy", "psycopg", "redis")


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """How much is measured.

    Parameters
    ----------
    form
        What the plan is called.
    rates
        Of calls a second.
    soak_calls
        To see what is kept of them.
    chaos
        Arguments of `run_chaos`.
    """

    form: str = "long"
    rates: RatePlan = field(default_factory=RatePlan)
    soak_calls: int = 200_000
    chaos: dict[str, Any] = field(default_factory=dict)


LONG = LoadPlan()
SHORT = LoadPlan(
    form="short",
    rates=RatePlan(calls=480),
    soak_calls=4_000,
    chaos={"calls": 600, "callers": 80, "timeout_seconds": 3.0},
)


def run_load(
    databases: Databases,
    *,
    plan: LoadPlan = LONG,
    parts: Sequence[str] = PARTS,
    seed: int = 0,
    command: str = "",
    on_step: Callable[[str], None] = lambda _: None,
) -> LoadResult:
    """Measure, part by part.

    Parameters
    ----------
    databases
        Which there are; what needs others is skipped, and the result says so.
    plan
        How much is measured.
    parts
        Some of `PARTS`.
    seed
        Which requests go wrong.
    command
        Noted in the result.
    on_step
        Told what is measured next.

    Raises
    ------
    ConfigurationError
        If there is no such part.
    """
    if unknown := [part for part in parts if part not in PARTS]:
        raise ConfigurationError(f"there is no part {unknown[0]!r}; known: {PARTS}")
    machine = machine_facts()  # its load is that of others, not of what follows
    measures: dict[str, Callable[[], Any]] = {
        "rates": lambda: tuple(
            measure_rates(databases, plan=plan.rates, on_step=on_step)
        ),
        "soak": lambda: tuple(
            measure_soak(databases, calls=plan.soak_calls, on_step=on_step)
        ),
        "chaos": lambda: _chaos(plan, seed, on_step),
    }
    found, seconds = {}, {}
    for part in PARTS:
        if part in parts:
            began = time.monotonic()
            found[part] = measures[part]()
            seconds[part] = time.monotonic() - began
    return LoadResult(
        form=plan.form,
        machine=machine,
        cores=usable_cores(),
        versions=package_versions(_USED),
        command=command,
        seed=seed,
        seconds=seconds,
        skipped=databases.skipped if "rates" in parts else {},
        **found,
    )


def _chaos(plan: LoadPlan, seed: int, on_step: Callable[[str], None]) -> Any:  # noqa: ANN401
    on_step("calling servers that misbehave")
    return run_chaos(**plan.chaos, seed=seed)
