"""What holds for every test: no network, few threads, real data if it is there."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

# Before anything imports numpy or a tokenizer.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["MIXLLM_SPOOL"] = "off"  # tests of it have folders of their own

import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
IN_CI = os.environ.get("CI", "").lower() == "true"
LOOPBACK = ["127.0.0.1", "::1"]

# Shared machines stall now and then; CI must judge the same examples each time.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if IN_CI else "here")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Block sockets, as `--disable-socket --allow-unix-socket` would."""
    config.option.disable_socket = True
    config.option.allow_unix_socket = True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests marked `network` reach this machine, and no other."""
    for item in items:
        if item.get_closest_marker("network"):
            item.add_marker(pytest.mark.allow_hosts(LOOPBACK))


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The folder of pyproject.toml."""
    return ROOT


@pytest.fixture(scope="session")
def bench_data() -> Path:
    """The folder of recorded answers; must be there in CI."""
    given = os.environ.get("MIXLLM_BENCH_DATA")
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    if (folder / "mmlu_pro.parquet").is_file():
        return folder
    reason = "no recorded answers: set MIXLLM_BENCH_DATA to the folder of the data sets"
    if IN_CI:
        pytest.fail(reason)
    pytest.skip(reason)


TOPICS = {
    "sums": ("add the numbers {0} and {1}", "how much is {0} times {1}"),
    "law": ("may a tenant of {0} years leave", "is contract number {0} void in {1}"),
    "poems": ("write a verse on {0} swans", "rhyme a line about {0} and {1} boats"),
}
# How good each candidate is at each topic, and what an answer takes.
SKILLS = {
    "small": {"sums": 0.9, "law": 0.3, "poems": 0.5},
    "medium": {"sums": 0.7, "law": 0.8, "poems": 0.4},
    "large": {"sums": 0.9, "law": 0.9, "poems": 0.9},
}
LENGTHS = {"small": 60, "medium": 100, "large": 150}


@pytest.fixture(scope="session")
def small_world():
    """Labels of three candidates on three topics, a router fitted on them, a log."""
    return SmallWorld()


class SmallWorld:
    """What a router learned, and then did for a week."""

    def __init__(self):
        from mixllm_integrations import Candidate, Router

        self.candidates = [
            Candidate("small", 0.1, 0.4),
            Candidate("medium", 1.0, 4.0),
            Candidate("large", 5.0, 20.0),
        ]
        self.train, self.held_out = self.records(240, seed=1), self.records(90, seed=2)
        self.router = Router(
            self.candidates, predictor="ridge", willingness_to_pay=0.01, seed=0
        ).fit(self.train)

    def records(self, n, *, seed):
        from mixllm_integrations import RoutingRecord

        rng = np.random.default_rng(seed)
        found = []
        for _ in range(n):
            topic = str(rng.choice(list(TOPICS)))
            text = str(rng.choice(TOPICS[topic])).format(*rng.integers(1000, 9999, 2))
            for candidate in self.candidates:
                skill, length = SKILLS[candidate.name][topic], LENGTHS[candidate.name]
                tokens = int(rng.integers(length // 2, 2 * length))
                cost = 12 * candidate.input_cost_per_million_tokens
                cost += tokens * candidate.output_cost_per_million_tokens
                found.append(
                    RoutingRecord(
                        text,
                        candidate.name,
                        float(rng.random() < skill),
                        12,
                        tokens,
                        cost / 1e6,
                        0.2 + 0.01 * tokens,
                        (topic,),
                    )
                )
        return found

    def write_records(self, file, records):
        with file.open("w", encoding="utf-8") as lines:
            for one in records:
                told = {name: getattr(one, name) for name in one.__slots__}
                lines.write(json.dumps({**told, "tags": list(one.tags)}) + "\n")
        return file

    def save_router(self, folder, **settings):
        """Save a router that has learned nothing online."""
        from mixllm_integrations import Router

        self.router.save(folder)
        fresh = Router.load(folder)
        for name, value in settings.items():
            setattr(fresh, name, value)
        fresh.save(folder)
        return folder

    def write_log(self, url, *, n=300, seed=3, folder):
        """Let a copy of the router answer `n` queries in a week; half are judged."""
        from mixllm_integrations import Outcome, Router
        from mixllm_integrations.serving.journal import Journal
        from mixllm_integrations.store.sql import SQLStore

        when = [datetime(2026, 7, 1, tzinfo=UTC)]

        class Dated(Journal):
            def _event(self, kind, decision_id, payload):
                return replace(super()._event(kind, decision_id, payload), at=when[0])

        router = Router.load(self.save_router(folder))
        router._policy.randomisation = 0.3  # so that other policies can be judged
        rng, records = np.random.default_rng(seed), self.records(n, seed=seed)
        answers = {(one.query, one.candidate): one for one in records}
        with SQLStore(url) as store:
            journal = Journal.__new__(Dated)
            Journal.__init__(journal, store)
            for query in dict.fromkeys(one.query for one in records):
                when[0] += timedelta(minutes=33)
                decision = router.route(query)
                handed_over = router.hand_over(decision.id)
                journal.decision(decision, handed_over=handed_over)
                answer = answers[query, decision.candidate]
                failed = rng.random() < 0.03
                outcome = Outcome(
                    12,
                    answer.output_tokens,
                    None if failed else answer.cost,
                    latency_seconds=answer.latency_seconds,
                    time_to_first_token_seconds=0.2,
                    error="TimeoutError" if failed else None,
                )
                router.record_outcome(decision.id, outcome)
                journal.outcome(decision.id, outcome)
                if rng.random() < 0.5 and not failed:
                    router.record_feedback(decision.id, answer.quality)
                    journal.feedback(decision.id, answer.quality, "refined", "judge")
            drift = {"candidate": "small", "quantity": "quality"}
            drift |= {"change": -0.31, "n_observations": 40}
            journal.drift(decision.id, drift)
            journal.flush()
            journal.close()
        return url
