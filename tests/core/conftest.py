"""Fixtures of the core's tests."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from mixllm_integrations.core.prior import QualityPrior
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, RoutingRecord


class HandClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds

    def move(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@dataclass(frozen=True)
class WorldSample:
    """Queries of a small world with what three candidates made of them."""

    queries: list[str]
    tags: list[tuple[str, ...]]
    expected_quality: np.ndarray  # what a router could know at best
    quality: np.ndarray
    output_tokens: np.ndarray
    cost: np.ndarray
    candidates: tuple[Candidate, ...]

    def records(self, *names: str) -> list[RoutingRecord]:
        """Return the records of some candidates, of all if none is named."""
        return [
            RoutingRecord(
                query,
                candidate.name,
                float(self.quality[row, column]),
                output_tokens=int(self.output_tokens[row, column]),
                cost=float(self.cost[row, column]),
                tags=self.tags[row],
            )
            for row, query in enumerate(self.queries)
            for column, candidate in enumerate(self.candidates)
            if not names or candidate.name in names
        ]


class SmallWorld:
    """Quality depends on a query's domain and on its length, and so do answers."""

    words: ClassVar = {
        "math": "sum fraction integral triangle equation prime matrix divide root",
        "law": "contract court plaintiff liability statute verdict appeal tenant will",
        "code": "function python loop array compiler variable bug pointer recursion",
        "food": "recipe oven butter soup garlic bake onion dessert flavour",
    }
    candidates = (
        Candidate("calculator", 0.5, 1.5),
        Candidate("lawyer", 1.0, 4.0),
        Candidate("all-round", 5.0, 15.0),
    )
    # Rows: domains. Short queries first, then long ones.
    short = np.array([[0.95, 0.1, 0.8], [0.1, 0.95, 0.8], [0.8, 0.2, 0.8], [0.3] * 3])
    long = np.array([[0.6, 0.1, 0.5], [0.1, 0.95, 0.5], [0.3, 0.2, 0.5], [0.3] * 3])
    lengths = np.array([[60, 200, 120], [90, 400, 150], [300, 350, 500], [40, 80, 90]])

    def sample(self, n: int, seed: int) -> WorldSample:
        rng = np.random.default_rng(seed)
        domain, is_long = rng.integers(0, 4, size=n), rng.random(n) < 0.5
        queries = [
            self._text(d, 18 if w else 4, rng)
            for d, w in zip(domain, is_long, strict=True)
        ]
        expected = np.where(is_long[:, None], self.long[domain], self.short[domain])
        mean_tokens = self.lengths[domain] * np.where(is_long, 2.0, 1.0)[:, None]
        spread = rng.lognormal(-0.18, 0.6, size=expected.shape)  # of mean 1
        tokens = np.maximum(np.round(mean_tokens * spread), 1.0)
        prices = np.array(
            [
                [c.input_cost_per_million_tokens, c.output_cost_per_million_tokens]
                for c in self.candidates
            ]
        )
        sent = np.array([len(q.split()) for q in queries])[:, None] * 1.3
        return WorldSample(
            queries,
            [(tuple(self.words)[d],) for d in domain],
            expected,
            (rng.random(expected.shape) < expected).astype(np.float64),
            tokens,
            (sent * prices[:, 0] + tokens * prices[:, 1]) / 1e6,
            self.candidates,
        )

    def _text(self, domain: int, n_words: int, rng: np.random.Generator) -> str:
        words = tuple(self.words.values())[domain].split()
        drawn = rng.choice(words, size=n_words)
        filler = rng.choice(["about", "with", "the", "for", "of"], size=drawn.size)
        told = " ".join(f"{a} {b}" for a, b in zip(drawn, filler, strict=True))
        return f"Explain {told} case {rng.integers(10_000)}?"


@pytest.fixture(scope="session")
def world() -> SmallWorld:
    return SmallWorld()


# --- routers ---------------------------------------------------------------------


class LetterEncoder:
    """An encoder of one's own: how often each letter occurs."""

    def __init__(self, dimension: int = 26, *, id: str = "letters", revision="1"):  # noqa: A002
        self.dimension, self.id, self.revision = dimension, id, revision

    def encode(self, texts):
        counts = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(counts, texts, strict=True):
            for letter in text.lower():
                row[ord(letter) % self.dimension] += 1.0
        counts[:, 0] += 1e-3  # an empty text has a direction, too
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


@pytest.fixture(scope="session")
def letter_encoder():
    """The class, so that a test can vary what it is called."""
    return LetterEncoder


@pytest.fixture(scope="session")
def few(world):
    """Sixty labelled queries of the small world."""
    return world.sample(60, seed=1)


@pytest.fixture
def fitted(few, clock):
    """Return a router that was fitted on them; settings may be changed."""

    def fit(*names: str, **settings) -> Router:
        given = {"predictor": "ridge", "clock": clock, **settings}
        return Router(few.candidates, **given).fit(few.records(*names))

    return fit


@pytest.fixture(scope="session")
def rewrite():
    """Change a saved router so that its checksums still hold."""

    def change(folder: Path, edit) -> None:
        state = json.loads((folder / "state.json").read_bytes())
        arrays = {
            name: np.array(array)
            for name, array in load_file(folder / "arrays.safetensors").items()
        }
        edit(state, arrays)
        content = {
            "state.json": json.dumps(state).encode(),
            "arrays.safetensors": save(arrays),
        }
        manifest = json.loads((folder / "manifest.json").read_bytes())
        for name, data in content.items():
            (folder / name).write_bytes(data)
            manifest["sha256"][name] = hashlib.sha256(data).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return change


@pytest.fixture
def prior() -> QualityPrior:
    """Return a prior by hand: longer texts are harder, many numbers too."""
    return QualityPrior(
        ("log_pieces", "numbers"),
        np.array([2.0, 0.0]),
        np.array([0.5, 1.0]),
        np.array([-0.5, -0.25]),
        0.5,
        1.0,
    )
