"""Training and test split of recorded answers."""

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.core.errors import ConfigurationError

__all__ = ["stratified_split"]


def stratified_split(
    table: BenchmarkTable, *, seed: int, test_share: float = 0.2
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split queries at random, domain by domain, copies of one text together.

    Parameters
    ----------
    table
        The queries; the first tag is the domain.
    seed
        Of the shuffle.
    test_share
        How much of each domain goes to the test split.

    Returns
    -------
    tuple[NDArray[np.int64], NDArray[np.int64]]
        Rows of the training and of the test split, ascending.

    Raises
    ------
    ConfigurationError
        If one of the splits would be empty.
    """
    copies: dict[str, list[int]] = {}
    for row, query in enumerate(table.queries):
        copies.setdefault(query, []).append(row)
    domain_of = table.domains
    domains: dict[str, list[list[int]]] = {}
    for rows in copies.values():
        domains.setdefault(domain_of[rows[0]], []).append(rows)
    rng = np.random.default_rng(seed)
    test: list[int] = []
    carried = 0.0
    for domain in sorted(domains):
        groups = domains[domain]
        wanted = carried + test_share * sum(map(len, groups))
        for index in rng.permutation(len(groups)):
            if wanted < 0.5:
                break
            test.extend(groups[index])
            wanted -= len(groups[index])
        carried = wanted
    held_out = np.array(sorted(test), dtype=np.int64)
    rest = np.setdiff1d(np.arange(len(table)), held_out)
    if not (len(held_out) and len(rest)):
        raise ConfigurationError(
            f"{len(table)} queries are too few to split; at least 5 different ones"
        )
    return rest, held_out
