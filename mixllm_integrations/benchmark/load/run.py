"""Runs the parts of the measurement under load, in the long or the short form."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixllm_integrations.benchmark.load.chaos import run_chaos
from mixllm_integrations.benchmark.load.places import REDIS, Databases
from mixllm_integrations.benchmark.load.rates import (
    RatePlan,
    measure_rates,
    usable_cores,
)
from mixllm_integrations.benchmark.load.results import LoadResult
from mixllm_integrations.benchmark.load.soak import measure_soak
from mixllm_integrations.benchmark.load.talking import hushed
from mixllm_integrations.benchmark.load.together import (
    log_of,
    measure_killing,
    measure_recovery,
    measure_siblings,
    on_one_thread,
)
from mixllm_integrations.benchmark.overhead import machine_facts
from mixllm_integrations.benchmark.versions import package_versions
from mixllm_integrations.core.errors import ConfigurationError

__all__ = ["LONG", "PARTS", "SHORT", "LoadPlan", "run_load"]

PARTS = ("rates", "siblings", "recovery", "killing", "soak", "chaos")
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
    workers, repeats
        How many learn from each other, and how often.
    events
        In the log that a new worker has to know.
    kills
        How often a worker is killed.
    soak_calls
        To see what is kept of them.
    chaos
        Arguments of `run_chaos`.
    """

    form: str = "long"
    rates: RatePlan = field(default_factory=RatePlan)
    workers: int = 4
    repeats: int = 10
    events: int = 1_000_000
    kills: int = 12
    soak_calls: int = 200_000
    chaos: dict[str, Any] = field(default_factory=dict)


LONG = LoadPlan()
SHORT = LoadPlan(
    form="short",
    rates=RatePlan(calls=480),
    repeats=3,
    events=20_000,
    kills=3,
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
        Of faults, of who is killed and when, and of a log.
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
    measures = _measures(databases, plan, seed, on_step)
    found, seconds = {}, {}
    with on_one_thread():
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
        skipped=_skipped(databases, parts),
        log=log_of(databases),
        **found,
    )


def _measures(
    databases: Databases, plan: LoadPlan, seed: int, say: Callable[[str], None]
) -> dict[str, Callable[[], Any]]:
    def rates() -> Any:  # noqa: ANN401
        return tuple(measure_rates(databases, plan=plan.rates, on_step=say))

    def siblings() -> Any:  # noqa: ANN401
        say(f"telling one of {plan.workers} workers, until all know")
        return measure_siblings(databases, workers=plan.workers, repeats=plan.repeats)

    def recover() -> Any:  # noqa: ANN401
        say(f"writing a log of {plan.events:,} events, for a new worker")
        return measure_recovery(databases, events=plan.events, seed=seed)

    def kill() -> Any:  # noqa: ANN401
        say(f"killing one of {plan.workers} workers, {plan.kills} times")
        return measure_killing(
            databases, workers=plan.workers, kills=plan.kills, seed=seed
        )

    def soak() -> Any:  # noqa: ANN401
        return tuple(measure_soak(databases, calls=plan.soak_calls, on_step=say))

    def chaos() -> Any:  # noqa: ANN401
        say("calling servers that misbehave")
        with hushed():
            return run_chaos(**plan.chaos, seed=seed)

    return dict(zip(PARTS, (rates, siblings, recover, kill, soak, chaos), strict=True))


def _skipped(databases: Databases, parts: Sequence[str]) -> dict[str, str]:
    found = dict(databases.skipped) if "rates" in parts else {}
    why = databases.why_not(REDIS)
    if "siblings" in parts and why is not None:
        found["how soon siblings heed a cooldown"] = why
    return found
