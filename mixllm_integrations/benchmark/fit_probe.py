"""Times a fit in a process that does nothing else, and takes its peak of memory.

``python -m mixllm_integrations.benchmark.fit_probe FILE`` fits a router on the
table that `write_table` wrote, decides on the prompts beside it, and prints
seconds and bytes as JSON.
`mixllm_integrations.benchmark.speed` starts it.
"""

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mixllm_integrations.benchmark.serving_probe import route_seconds
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, FloatArray

__all__ = ["main", "peak_bytes", "predict_seconds", "read_table", "write_table"]

_REPEATS = 3
_STATUS = Path("/proc/self/status")
_MATRICES = ("quality", "input_tokens", "output_tokens", "cost", "latency_seconds")


def write_table(table: BenchmarkTable, prompts: Sequence[str], file: Path) -> None:
    """Write a table and prompts as one JSON object, each text once.

    Parameters
    ----------
    table
        What to fit on.
    prompts
        What to decide on.
    file
        Where to.
    """
    columns = {name: _listed(getattr(table, name)) for name in _MATRICES}
    candidates = [asdict(candidate) for candidate in table.candidates]
    about: dict[str, Any] = {
        "name": table.name,
        "queries": table.queries,
        "tags": table.tags,
    }
    about["prompts"] = list(prompts)
    text = json.dumps(about | columns | {"candidates": candidates})
    file.write_text(text, encoding="utf-8")


def read_table(file: Path) -> tuple[BenchmarkTable, list[str]]:
    """Return the table and the prompts that `write_table` wrote.

    Parameters
    ----------
    file
        Where from.
    """
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    table = BenchmarkTable(
        found["name"],
        tuple(found["queries"]),
        tuple(tuple(tags) for tags in found["tags"]),
        tuple(Candidate(**given) for given in found["candidates"]),
        **{name: np.array(found[name], dtype=np.float64) for name in _MATRICES},
    )
    return table, found["prompts"]


def predict_seconds(router: Router, prompts: Sequence[str]) -> float:
    """Return what `Router.predict` takes per query, all at once; best of three.

    Parameters
    ----------
    router
        Who predicts.
    prompts
        The queries.
    """
    spent = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        router.predict(prompts)
        spent.append(time.perf_counter() - began)
    return min(spent) / len(prompts)


def peak_bytes() -> int | None:
    """Return the most memory this process has had; ``None`` if it is not told.

    Linux also counts in `resource` what the process was started from had, so
    its own figure is asked for there.
    """
    if _STATUS.exists():
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
        peak = next((line for line in lines if line.startswith("VmHWM:")), None)
        return None if peak is None else 1024 * int(peak.split()[1])
    try:
        import resource
    except ImportError:  # not a Unix
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes


def _listed(matrix: FloatArray) -> list[list[float | None]]:
    return [[None if math.isnan(x) else x for x in row] for row in matrix.tolist()]


def main() -> None:
    """Fit, decide, and print what it took."""
    table, prompts = read_table(Path(sys.argv[1]))
    records, before = table.records(), peak_bytes()
    began = time.perf_counter()
    router = Router(table.candidates).fit(records)
    found: dict[str, Any] = {"seconds": time.perf_counter() - began, "before": before}
    found["peak"] = peak_bytes()
    found["route"] = route_seconds(router, prompts)
    found["predict"] = predict_seconds(router, prompts)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
