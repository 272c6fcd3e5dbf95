"""A log that is written line by line, and a store in memory that holds it."""

from datetime import UTC, datetime, timedelta

import pytest

from mixllm_integrations.store import Event

START = datetime(2026, 7, 1, tzinfo=UTC)


class LogBook:
    """Events in the order in which they are written, a minute apart."""

    def __init__(self):
        self.events_written = []
        self.asked = []

    def write(self, kind, decision_id, payload, *, at=None):
        place = len(self.events_written)
        at = START + timedelta(minutes=place) if at is None else at
        self.events_written.append(Event(place + 1, kind, decision_id, at, payload))
        return decision_id

    def decide(self, decision_id, candidate="small", *, at=None, **changes):
        """Quality 0.5 and 0.8, cost 0.001 and 0.005 are expected of two."""
        payload = {
            "candidate": candidate,
            "predicted_quality": {"small": 0.5, "large": 0.8}.get(candidate, 0.1),
            "predicted_cost": {"small": 0.001, "large": 0.005}.get(candidate, 0.1),
            "willingness_to_pay": 0.01,
            "exploration": 0.0,
            "waiting_weight": 0.0,
            "explored": False,
            "propensity": 0.5,
            "excluded": {},
            "scores": {
                "candidates": ["small", "large"],
                "quality": [0.5, 0.8],
                "cost": [0.001, 0.005],
                "uncertainty": [0.1, 0.2],
                "waiting_penalty": [0.0, 0.0],
            },
            **changes,
        }
        payload = {key: value for key, value in payload.items() if value is not ...}
        return self.write("decision", decision_id, payload, at=at)

    def answer(self, decision_id, cost=0.002, error=None):
        return self.write("outcome", decision_id, {"cost": cost, "error": error})

    def judge(self, decision_id, reward, kind="binary"):
        payload = {"reward": reward, "kind": kind, "source": None}
        return self.write("feedback", decision_id, payload)

    # The rest makes it an event store.
    def append(self, kind, decision_id, payload):
        self.write(kind, decision_id, payload)
        return True

    def events(self, *, after=0, limit=None):
        self.asked.append((after, limit))
        return iter(self.events_written[after:][:limit])

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@pytest.fixture
def book():
    return LogBook()
