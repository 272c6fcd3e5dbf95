"""What the security tests share: a small router, its files, and hostile values."""

import hashlib
import json
import tracemalloc
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
from safetensors.numpy import save

from mixllm_integrations import Candidate, Outcome, Router, RoutingRecord
from mixllm_integrations.core import parts, persistence

CANDIDATES = tuple(
    Candidate(name, price, 2 * price)
    for name, price in (("calculator", 1), ("lawyer", 3), ("all-round", 10))
)
DOMAINS = {
    "law": "tax court tenant contract law",
    "maths": "integral prime matrix proof sum",
    "verse": "poem novel verse rhyme story",
}
#: What no number, name or table in a file should be, and may be all the same.
NASTY = (
    *(None, True, False, -1, 0, 1, 2**63, 10**400, -(10**30), 1e308, -1e308, 1e-320),
    *({"$float": "inf"}, {"$float": "-inf"}, {"$float": "nan"}, {"$float": [1]}),
    *("", "x", "\ud800", "../../etc/passwd", "\x1b[2J", "a" * 10_000, "\0"),
    *([], {}, [[]], [1, 2, 3], {"a": 1}, ["a"] * 3, [[[[[]]]]], [None], [[1], [2]]),
)


def sealed(state: bytes, arrays: bytes) -> dict[str, bytes]:
    """Files with digests that fit them: whoever forges a file forges these, too."""
    content = {"state.json": state, "arrays.safetensors": arrays}
    manifest = {
        "format_version": 1,
        "sha256": {n: hashlib.sha256(c).hexdigest() for n, c in content.items()},
        "bytes": {n: len(c) for n, c in content.items()},
        "header": parts.digest(arrays[:8]),
        "parts": {},
    }
    return {**content, "manifest.json": json.dumps(manifest).encode()}


class Saved:
    """A saved router, its state as JSON, and its arrays."""

    def __init__(self, router):
        state, self.arrays = router._state()
        self.files = persistence.packed(state, self.arrays)
        self.state = json.loads(self.files["state.json"])
        self.places = list(_places(self.state, ()))

    def with_state(self, state) -> dict[str, bytes]:
        # As Python's json writes it: infinities and NaN, too.
        text = json.dumps(state).encode()
        return sealed(text, self.files["arrays.safetensors"])

    def with_arrays(self, arrays) -> dict[str, bytes]:
        whole = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
        return sealed(self.files["state.json"], save(whole))

    def with_bytes(self, arrays: bytes) -> dict[str, bytes]:
        return sealed(self.files["state.json"], arrays)


def _places(value, place):
    yield place
    if isinstance(value, dict):
        for key in value:
            yield from _places(value[key], (*place, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 3)):
            yield from _places(value[index], (*place, index))


def small_records() -> list[RoutingRecord]:
    rng = np.random.default_rng(0)
    found = []
    for row in range(42):
        own = row % 3
        domain, words = list(DOMAINS.items())[own]
        query = " ".join([*rng.choice(words.split(), 6), f"{row}?"])
        for column, candidate in enumerate(CANDIDATES):
            good = 0.3 + 0.5 * (column == own) + 0.1 * rng.normal()
            found.append(
                RoutingRecord(
                    query,
                    candidate.name,
                    float(np.clip(good, 0.0, 1.0)),
                    20,
                    50 + 100 * column,
                    tags=(domain,),
                )
            )
    return found


def small_router(**settings) -> Router:
    """A fitted router that has learned a little online; four decisions wait."""
    records = small_records()
    router = Router(
        CANDIDATES,
        seed=3,
        implicit_signals=("regenerate",),
        spending_budget=1_000.0,
        **settings,
    )
    router.fit(records)
    router.add_candidate(Candidate("newcomer", 1, 1))
    for turn in range(20):
        decision = router.route(records[turn * 3].query)
        router.record_outcome(decision.id, Outcome(20, 100, latency_seconds=1.0))
        if turn % 2:
            router.record_feedback(decision.id, 0.5 + 0.5 * (turn % 3 == 0))
        else:
            good = float(turn % 4 == 0)
            router.record_feedback(decision.id, good, kind="binary", source="thumbs")
        if turn % 5 == 0:
            router.record_signal(decision.id, "regenerate")
    for record in records[:4]:
        router.route(record.query)
    return router


@pytest.fixture(scope="session")
def saved() -> Saved:
    return Saved(small_router())


@pytest.fixture(scope="session")
def saved_with_gradient() -> Saved:
    return Saved(small_router(binary_feedback="policy_gradient"))


@pytest.fixture(scope="session")
def records() -> list[RoutingRecord]:
    return small_records()


@pytest.fixture(scope="session")
def nasty():
    return NASTY


@pytest.fixture(scope="session")
def seal():
    return sealed


@pytest.fixture(scope="session")
def within():
    """Raise if more memory is taken than that, by what Python and numpy count."""

    @contextmanager
    def measured(megabytes: float):
        tracemalloc.start()
        try:
            yield
            peak = tracemalloc.get_traced_memory()[1] / 1e6
        finally:
            tracemalloc.stop()
        assert peak < megabytes, f"{peak:.0f} MB"

    return measured


@pytest.fixture
def quiet():
    """Damage is warned of, as it should be: other tests look at the warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield
