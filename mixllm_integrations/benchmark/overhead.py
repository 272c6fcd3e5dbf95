"""Speed and memory: what routing adds to a call, on this machine.

Run ``python -m mixllm_integrations.benchmark.overhead DATA`` or ``mixllm
benchmark overhead``. What must not be disturbed by the rest (imports, memory)
is measured in processes of its own.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mixllm_integrations.benchmark.splits import stratified_split
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.core.errors import MixLLMError

if TYPE_CHECKING:
    from mixllm_integrations.core.router import Router

__all__ = [
    "Overhead",
    "Timing",
    "machine_facts",
    "main",
    "measure_overhead",
    "print_overhead",
    "run_python",
]

_N_ROUTED = 11
_PROBE = "mixllm_integrations.benchmark.serving_probe"
_BARE = "bare model"
_MUST_NOT_LOAD = (
    *("sklearn", "torch", "scipy", "pandas", "matplotlib", "sentence_transformers"),
    *("langchain_core", "llama_index", "sqlalchemy"),
)
_STATEMENTS = (
    "import mixllm_integrations",
    "from mixllm_integrations import Router",
    "from mixllm_integrations import MixLLMChatModel",
)
_IMPORT = """
import sys, time
before = time.perf_counter()
{statement}
spent = time.perf_counter() - before
print(spent, *sorted({watched} & set(sys.modules)))
"""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long something took, in seconds.

    Parameters
    ----------
    p50, p99, mean
        Over `n` times.
    n
        How often it was measured.
    """

    p50: float
    p99: float
    mean: float
    n: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Timing":
        """Return the figures of a sample."""
        values = np.asarray(seconds, dtype=float)
        p50, p99 = np.percentile(values, [50, 99])
        return cls(float(p50), float(p99), float(values.mean()), len(values))


@dataclass(frozen=True, slots=True)
class Overhead:
    """What routing costs in time and memory on one machine.

    Parameters
    ----------
    command, machine
        How and where it was measured.
    import_seconds
        Median of fresh processes, by statement.
    imported
        Which watched modules ``import mixllm_integrations`` loads.
    route
        `Router.route`, embedding included, with `n_routed` candidates.
    n_routed, n_fitted
        How many candidates were routed over, and fitted.
    invoke
        A bare scripted chat model, and the same behind each router; measured
        in turn.
    added_p50
        Median over the calls of what each router adds to the bare model.
    fit_seconds, n_fit_queries
        `Router.fit` on how many queries.
    resident_bytes, served_with
        Memory of a process that has loaded the router and served prompts, and
        which watched modules it has loaded; ``None`` where it cannot be read.
    """

    command: str
    machine: str
    import_seconds: dict[str, float]
    imported: tuple[str, ...]
    route: Timing
    n_routed: int
    n_fitted: int
    invoke: dict[str, Timing]
    added_p50: dict[str, float]
    fit_seconds: float
    n_fit_queries: int
    resident_bytes: int | None
    served_with: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain lists, numbers and strings."""
        return asdict(self)


def measure_overhead(
    table: BenchmarkTable,
    *,
    n_calls: int = 1000,
    n_imports: int = 7,
    command: str = "",
    on_step: Callable[[str], None] | None = None,
) -> Overhead:
    """Measure import, fit, decision, chat model and memory.

    Parameters
    ----------
    table
        Complete queries: 80 % to fit on, the rest are the prompts. Decisions
        are over its first eleven candidates.
    n_calls
        How many decisions and calls are timed.
    n_imports
        How often each import is timed.
    command
        Noted in the result.
    on_step
        Told what is measured next.
    """
    from mixllm_integrations.core.router import Router

    say = on_step or (lambda _step: None)
    say("importing")
    imports = {s: _import_seconds(s, n_imports) for s in _STATEMENTS}
    rows, held_out = stratified_split(table, seed=0)
    say(f"fitting {len(rows):,} queries")
    train = table.select(rows)
    records = train.records()
    began = time.perf_counter()
    Router(table.candidates).fit(records)
    fit_seconds = time.perf_counter() - began
    names = table.names[:_N_ROUTED]
    few = train.only(names)
    router = Router(few.candidates).fit(few.records())
    say("serving in a process of its own")
    drawn = np.random.default_rng(0).choice(held_out, size=n_calls)
    served = _serve(router, [table.queries[i] for i in drawn])
    bare = np.asarray(served["invoke"][_BARE])
    return Overhead(
        command,
        machine_facts(),
        {statement: seconds for statement, (seconds, _) in imports.items()},
        imports[_STATEMENTS[0]][1],
        Timing.of(served["route"]),
        len(names),
        len(table.names),
        {who: Timing.of(seconds) for who, seconds in served["invoke"].items()},
        {
            who: float(np.median(np.asarray(seconds) - bare))
            for who, seconds in served["invoke"].items()
            if who != _BARE
        },
        fit_seconds,
        len(rows),
        served["resident_bytes"],
        tuple(served["served_with"]),
    )


def print_overhead(found: Overhead, console: Console) -> None:
    """Print the figures as a table.

    Parameters
    ----------
    found
        What was measured.
    console
        Where to.
    """
    table = Table(
        title=f"Overhead, {found.n_routed} candidates, {found.route.n:,} prompts",
        caption=found.machine,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("what", no_wrap=True)
    for head in ("p50", "p99", "adds"):
        table.add_column(head, justify="right", no_wrap=True)
    for statement, seconds in found.import_seconds.items():
        table.add_row(
            statement.replace("from mixllm_integrations ", ""), _time(seconds)
        )
    table.add_row("Router.route", _time(found.route.p50), _time(found.route.p99))
    for who, timing in found.invoke.items():
        added = "" if who == _BARE else _time(found.added_p50[who])
        table.add_row(f"invoke {who}", _time(timing.p50), _time(timing.p99), added)
    fitted = f"Router.fit, {found.n_fit_queries:,} x {found.n_fitted}"
    table.add_row(fitted, _time(found.fit_seconds))
    if found.resident_bytes is not None:
        megabytes = found.resident_bytes / 1e6
        table.add_row("memory of a serving process", f"{megabytes:.0f} MB")
    console.print(table)
    for what, modules in (
        ("Importing the package", found.imported),
        ("Serving", found.served_with),
    ):
        console.print(f"{what} loads of what it must not: {', '.join(modules) or '-'}")


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if abs(seconds) >= 1 else f"{1e3 * seconds:.3f} ms"


def machine_facts() -> str:
    """Return processor, cores, load and Python's version in one line."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores{load}, Python "
        f"{platform.python_version()}"
    )


def run_python(*arguments: str) -> str:
    """Return what a Python process of its own printed.

    Parameters
    ----------
    arguments
        Of the interpreter.

    Raises
    ------
    MixLLMError
        If it failed; the message is the last line of its complaint.
    """
    done = subprocess.run(  # noqa: S603
        [sys.executable, *arguments], check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        last = done.stderr.strip().rpartition("\n")[2]
        raise MixLLMError(f"a process that was to be measured failed: {last}")
    return done.stdout


def _import_seconds(statement: str, n: int) -> tuple[float, tuple[str, ...]]:
    code = _IMPORT.format(statement=statement, watched=set(_MUST_NOT_LOAD))
    runs = [run_python("-c", code).split() for _ in range(n)]
    return float(np.median([float(run[0]) for run in runs])), tuple(runs[0][1:])


def _serve(router: "Router", prompts: Sequence[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        folder, file = Path(temporary, "router"), Path(temporary, "prompts.json")
        router.save(folder)
        file.write_text(json.dumps(prompts), encoding="utf-8")
        served: dict[str, Any] = json.loads(
            run_python("-m", _PROBE, str(folder), str(file))
        )
    return served


def main() -> None:
    """Measure on the data set that the command line names, and print it."""
    from mixllm_integrations.benchmark.datasets import load_table

    table = load_table(sys.argv[1])
    print_overhead(measure_overhead(table, command=" ".join(sys.argv)), Console())


if __name__ == "__main__":
    main()
