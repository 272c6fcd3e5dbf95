"""Speed and memory: what routing adds to a call, on this machine.

Run ``python -m mixllm_integrations.benchmark.overhead DATA`` or ``mixllm
benchmark overhead``. What must not be disturbed by the rest (imports, calls,
memory) is measured in processes of its own.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixllm_integrations.benchmark.call_figures import (
    FITTED,
    HEARD,
    BatchFigures,
    CallFigures,
    MemoryFigures,
    Timing,
)
from mixllm_integrations.benchmark.splits import stratified_split
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.benchmark.versions import package_versions
from mixllm_integrations.core.errors import MixLLMError
from mixllm_integrations.plots.console import PlainConsole

if TYPE_CHECKING:
    from mixllm_integrations.core.router import Router

__all__ = [
    "Overhead",
    "Timing",
    "machine_facts",
    "main",
    "measure_overhead",
    "run_python",
]

_N_ROUTED = 11
_N_THREADS = 8
_PROBES = "mixllm_integrations.benchmark"
_COMPARED = ("langchain-core", "langchain-model-router")
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
class Overhead:
    """What routing costs in time and memory on one machine.

    Parameters
    ----------
    command, machine, versions
        How, where and with what it was measured.
    import_seconds
        Median of fresh processes, by statement.
    imported
        Which watched modules ``import mixllm_integrations`` loads.
    route
        `Router.route`, embedding included, with `n_routed` candidates.
    n_routed, n_fitted
        How many candidates were routed over, and fitted.
    calls
        ``"invoke"``, ``"ainvoke"``, ``"stream"`` and ``"astream"`` of a bare
        scripted chat model, and of the same behind each router.
    batch
        The same prompts in one call of `batch`.
    memory
        What a serving process keeps of its calls, without and with a callback
        handler that listens.
    fit_seconds, n_fit_queries
        `Router.fit` on how many queries.
    resident_bytes, served_with
        Memory of a process that has loaded the router and served prompts, and
        which watched modules it has loaded; ``None`` where it cannot be read.
    """

    command: str
    machine: str
    versions: dict[str, str]
    import_seconds: dict[str, float]
    imported: tuple[str, ...]
    route: Timing
    n_routed: int
    n_fitted: int
    calls: dict[str, CallFigures]
    batch: BatchFigures
    memory: dict[str, MemoryFigures]
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
    n_kept: int = 100_000,
    n_imports: int = 7,
    command: str = "",
    on_step: Callable[[str], None] | None = None,
) -> Overhead:
    """Measure import, fit, decision, calls of chat models and memory.

    Parameters
    ----------
    table
        Complete queries: 80 % to fit on, the rest are the prompts. Decisions
        are over its first eleven candidates.
    n_calls
        How many decisions and calls of each kind are timed.
    n_kept
        How many calls are made to see what is kept of them.
    n_imports
        How often each import is timed.
    command
        Noted in the result.
    on_step
        Told what is measured next.
    """
    from mixllm_integrations.core.router import Router

    say = on_step or (lambda _step: None)
    machine = machine_facts()  # its load is that of others, not of what follows
    say("importing")
    imports = {s: _import_seconds(s, n_imports) for s in _STATEMENTS}
    rows, held_out = stratified_split(table, seed=0)
    say(f"fitting {len(rows):,} queries")
    train = table.select(rows)
    records = train.records()
    began = time.perf_counter()
    Router(table.candidates).fit(records)
    fit_seconds = time.perf_counter() - began
    few = train.only(table.names[:_N_ROUTED])
    router = Router(few.candidates).fit(few.records())
    drawn = np.random.default_rng(0).choice(held_out, size=n_calls)
    served, called, kept = _probed(
        router, [table.queries[i] for i in drawn], n_kept=n_kept, say=say
    )
    return Overhead(
        command=command,
        machine=machine,
        versions=package_versions(_COMPARED),
        import_seconds={s: seconds for s, (seconds, _) in imports.items()},
        imported=imports[_STATEMENTS[0]][1],
        route=Timing.of(served["route"]),
        n_routed=len(few.names),
        n_fitted=len(table.names),
        calls={kind: CallFigures.of(s) for kind, s in called["calls"].items()},
        batch=BatchFigures.of(called["batch"], n_prompts=n_calls, n_threads=_N_THREADS),
        memory={who: MemoryFigures.of(samples) for who, samples in kept.items()},
        fit_seconds=fit_seconds,
        n_fit_queries=len(rows),
        resident_bytes=served["resident_bytes"],
        served_with=tuple(served["served_with"]),
    )


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


def _probed(
    router: "Router", prompts: Sequence[str], *, n_kept: int, say: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, list[Any]]]:
    """Return what the probes print: decisions, calls, what is kept of calls."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, file = Path(temporary, "router"), Path(temporary, "prompts.json")
        router.save(folder)
        file.write_text(json.dumps(prompts), encoding="utf-8")
        say(f"deciding on {len(prompts):,} prompts")
        served = _printed("serving_probe", folder, file)
        say(f"calling each model {len(prompts):,} times, in four ways")
        called = _printed("chat_probe", folder, file, _N_THREADS)
        say(f"calling {n_kept:,} times to see what is kept")
        # Memory is not time: the two may share the machine.
        with ThreadPoolExecutor(2) as both:
            plain = both.submit(_printed, "memory_probe", folder, n_kept)
            heard = both.submit(_printed, "memory_probe", folder, n_kept, "heard")
            kept = {FITTED: plain.result(), HEARD: heard.result()}
    return served, called, kept


def _printed(probe: str, *arguments: object) -> Any:  # noqa: ANN401 - JSON
    return json.loads(run_python("-m", f"{_PROBES}.{probe}", *map(str, arguments)))


def main() -> None:
    """Measure on the data set that the command line names, and print it."""
    from mixllm_integrations.benchmark.datasets import load_table
    from mixllm_integrations.benchmark.overhead_results import print_overhead

    table = load_table(sys.argv[1])
    print_overhead(measure_overhead(table, command=" ".join(sys.argv)), PlainConsole())


if __name__ == "__main__":
    main()
