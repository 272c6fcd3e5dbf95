"""LangSmith feedback reaches the router: what we send, and what users say there."""

import json
import logging
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import pytest
import requests
from langchain_core.runnables import RunnablePassthrough
from langsmith import Client
from langsmith.schemas import Feedback, LangSmithInfo
from langsmith.utils import LangSmithConnectionError
from urllib3.util.retry import Retry

from mixllm_integrations.core.errors import ConfigurationError, UnknownDecisionError
from mixllm_integrations.langchain.tracing.langsmith_feedback import (
    LangSmithFeedback,
    MirrorCounts,
)

SESSION = uuid4()
START = datetime(2026, 1, 1, tzinfo=UTC)


class StandIn:
    """A model that knows some runs, and takes one feedback of a kind for each."""

    def __init__(self, known):
        self.known = list(known)
        self.run_ids = SimpleNamespace(latest=lambda count: self.known[-count:])
        self.told = []

    def record_feedback(self, answer, reward, *, kind="refined", source=None):
        if answer not in self.known:
            raise UnknownDecisionError(str(answer))
        new = all((run, k) != (answer, kind) for run, _, k, _ in self.told)
        if new:
            self.told.append((answer, reward, kind, source))
        return new


class FakeClient:
    """The two methods of a client; feedback is kept in memory."""

    def __init__(self):
        self.created = []
        self.kept = []
        self.asked = []
        self.error = None

    def create_feedback(self, run_id=None, key="unnamed", **kwargs):
        if self.error is not None:
            raise self.error
        self.created.append((run_id, key, kwargs))
        return "made"

    def list_feedback(self, *, run_ids, feedback_key=None):
        self.asked.append((list(run_ids), feedback_key))
        if self.error is not None:
            raise self.error
        for row in self.kept:
            if row["run_id"] in run_ids:
                yield Feedback(**row)

    def say(self, run_id, key="thumbs", *, minutes=0, **fields):
        at = START + timedelta(minutes=minutes)
        self.kept.append(
            {
                "id": uuid4(),
                "run_id": run_id,
                "trace_id": run_id,
                "key": key,
                "created_at": at,
                "modified_at": at,
                **fields,
            }
        )


@pytest.fixture
def runs():
    return [uuid4() for _ in range(3)]


@pytest.fixture
def model(runs):
    return StandIn(runs)


@pytest.fixture
def client():
    return FakeClient()


@pytest.fixture
def mirror(model, client):
    return LangSmithFeedback(model, client)


def test_feedback_goes_to_both(mirror, model, client, runs):
    made = mirror.create_feedback(
        runs[0], "taste", score=0.7, value="fine", comment="ok", session_id=SESSION
    )
    assert made == "made"
    assert client.created == [
        (
            runs[0],
            "taste",
            {"score": 0.7, "value": "fine", "comment": "ok", "session_id": SESSION},
        )
    ]
    assert model.told == [(runs[0], 0.7, "refined", "langsmith:taste")]
    assert mirror.counts == MirrorCounts(recorded=1)


@pytest.mark.parametrize(
    ("score", "reward", "kind"),
    [
        (True, 1.0, "binary"),
        (False, 0.0, "binary"),
        (1, 1.0, "binary"),
        (0.0, 0.0, "binary"),
        (0.25, 0.25, "refined"),
    ],
)
def test_scores_of_zero_and_one_count_as_binary(
    mirror, model, runs, score, reward, kind
):
    mirror.create_feedback(runs[0], "k", score=score)
    assert model.told == [(runs[0], reward, kind, "langsmith:k")]


@pytest.mark.parametrize(
    "score", [None, 1.2, -0.1, float("nan"), float("inf"), "good", 5]
)
def test_what_is_no_reward_is_sent_and_teaches_nothing(
    mirror, model, client, runs, score
):
    mirror.create_feedback(runs[0], "k", score=score, comment="why")
    assert len(client.created) == 1
    assert model.told == []
    assert mirror.counts == MirrorCounts(unusable=1)


@pytest.mark.parametrize(
    ("scale", "score", "reward"),
    [((1, 5), 4, 0.75), ((5, 1), 5, 0.0), ((-1, 1), 0, 0.5), (None, 1, 1.0)],
)
def test_a_scale_makes_a_reward_of_a_score(model, client, runs, scale, score, reward):
    mirror = LangSmithFeedback(model, client, keys={"stars": ("refined", scale)})
    mirror.create_feedback(runs[0], "stars", score=score)
    assert model.told == [(runs[0], reward, "refined", "langsmith:stars")]


def test_a_score_off_its_scale_teaches_nothing(model, client, runs):
    mirror = LangSmithFeedback(model, client, keys={"stars": ("refined", (1, 5))})
    mirror.create_feedback(runs[0], "stars", score=6)
    assert model.told == []


def test_only_chosen_keys_teach(model, client, runs):
    mirror = LangSmithFeedback(model, client, keys={"thumbs": ("binary", None)})
    mirror.create_feedback(runs[0], "length", score=1)
    assert len(client.created) == 1
    assert model.told == []
    mirror.create_feedback(runs[0], "thumbs", score=0.4)
    assert model.told == [(runs[0], 0.4, "binary", "langsmith:thumbs")]


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        (["thumbs"], "mapping"),
        ({"a": "binary"}, "kind and a scale"),
        ({"a": ("good", None)}, "'good'"),
        ({"a": ("binary", 5)}, "scale"),
        ({"a": ("binary", (1, 1))}, "different"),
        ({"a": ("binary", (0, float("inf")))}, "different"),
        ({"a": ("binary", (0, "x"))}, "scale"),
    ],
)
def test_keys_that_cannot_be_used_are_an_error(model, client, keys, word):
    with pytest.raises(ConfigurationError, match=word):
        LangSmithFeedback(model, client, keys=keys)


def test_an_unknown_run_is_counted_and_told_only_to_who_looks_closely(
    mirror, client, caplog
):
    caplog.set_level(logging.DEBUG)
    mirror.create_feedback(uuid4(), "k", score=1)
    assert len(client.created) == 1
    assert mirror.counts == MirrorCounts(unknown_runs=1)
    assert {record.levelname for record in caplog.records} == {"DEBUG"}


@pytest.mark.parametrize("form", [str, lambda run: run.hex, lambda run: run])
def test_a_run_is_named_in_any_form_that_the_client_takes(mirror, model, runs, form):
    mirror.create_feedback(form(runs[0]), "k", score=1)
    assert model.told[0][0] == runs[0]


def test_a_trace_stands_for_its_run(mirror, model, client, runs):
    mirror.create_feedback(key="k", score=1, trace_id=runs[1])
    assert model.told[0][0] == runs[1]
    assert client.created[0][0] is None


def test_feedback_on_a_project_is_only_sent(mirror, model, client):
    mirror.create_feedback(key="k", score=1, project_id=uuid4())
    assert len(client.created) == 1
    assert (model.told, mirror.counts) == ([], MirrorCounts())


def test_the_router_has_learned_even_if_langsmith_is_away(mirror, model, client, runs):
    client.error = LangSmithConnectionError("no route")
    with pytest.raises(LangSmithConnectionError):
        mirror.create_feedback(runs[0], "k", score=1)
    assert len(model.told) == 1


async def test_feedback_can_be_given_without_blocking_the_loop(
    mirror, model, client, runs
):
    await mirror.acreate_feedback(runs[0], "k", score=1, comment="c")
    assert len(model.told) == len(client.created) == 1
    client.say(runs[1], score=1)
    assert await mirror.apull() == 1


def test_what_users_said_is_pulled_once(mirror, model, client, runs):
    client.say(runs[0], score=1)
    client.say(runs[2], "quality", score=0.5)
    client.say(uuid4(), score=0)
    assert mirror.pull() == 2
    assert model.told == [
        (runs[0], 1.0, "binary", "langsmith:thumbs"),
        (runs[2], 0.5, "refined", "langsmith:quality"),
    ]
    assert mirror.pull() == 0
    assert mirror.counts == MirrorCounts(recorded=2, repeated=2)


@pytest.mark.parametrize("score", [True, 0.33333333, 0.99999, 1])
def test_what_was_sent_is_not_new_when_it_is_pulled(mirror, model, client, runs, score):
    mirror.create_feedback(runs[0], "k", score=score)
    client.say(runs[0], "k", score=round(float(score), 4))  # as LangSmith keeps it
    assert mirror.pull() == 0


def test_a_comment_alone_is_pulled_and_teaches_nothing(mirror, model, client, runs):
    client.say(runs[0], score=None, comment="hm", value={"a": 1})
    assert mirror.pull() == 0
    assert model.told == []


def test_of_several_the_first_one_said_teaches(mirror, model, client, runs):
    client.say(runs[0], "a", minutes=2, score=0.9)
    client.say(runs[0], "b", minutes=1, score=0.2)
    assert mirror.pull() == 1
    assert model.told[0][1] == 0.2


def test_only_the_latest_runs_are_asked_for_and_only_chosen_keys(model, client, runs):
    mirror = LangSmithFeedback(model, client, keys={"thumbs": ("binary", None)})
    mirror.pull(max_runs=2)
    assert client.asked == [(runs[1:], ["thumbs"])]
    mirror.pull([runs[0]])
    assert client.asked[1] == ([runs[0]], ["thumbs"])


def test_many_runs_are_asked_for_in_portions(client):
    model = StandIn(uuid4() for _ in range(250))
    client.say(model.known[-1], score=1)
    assert LangSmithFeedback(model, client).pull() == 1
    assert [len(asked) for asked, _ in client.asked] == [100, 100, 50]


def test_a_model_without_runs_asks_for_nothing(client):
    assert LangSmithFeedback(StandIn([]), client).pull() == 0
    assert client.asked == []


def test_an_outage_is_told_once_and_the_next_pull_goes_on(mirror, client, runs, caplog):
    client.error = LangSmithConnectionError("no route")
    assert mirror.pull() == mirror.pull() == 0
    (warning,) = caplog.records
    assert "LangSmithConnectionError" in warning.getMessage()
    client.error = None
    client.say(runs[0], score=1)
    assert mirror.pull() == 1
    client.error = LangSmithConnectionError("no route")
    mirror.pull()
    assert len(caplog.records) == 2


def test_damaged_feedback_hides_no_other(mirror, client, runs):
    client.say(runs[0], score=1)
    client.say(runs[1], score="very good")
    client.say(runs[2], score=0)
    assert mirror.pull() == 2
    assert mirror.counts == MirrorCounts(recorded=2, unusable=1)


def test_counts_are_right_with_many_threads(client):
    model = StandIn(uuid4() for _ in range(400))
    mirror = LangSmithFeedback(model, client)

    def work(part):
        for run_id in part:
            mirror.create_feedback(run_id, "k", score=1)

    threads = [
        threading.Thread(target=work, args=(model.known[n::4],)) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mirror.counts.recorded == 400


class Server:
    """Speaks the few endpoints of LangSmith that feedback needs."""

    def __init__(self):
        self.rows = []
        self.seen = Counter()
        self.fails = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self._answer(*outer.got(urlsplit(self.path)))

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self._answer(*outer.posted(urlsplit(self.path), json.loads(body)))

            def _answer(self, status, body):
                written = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(written)))
                self.end_headers()
                self.wfile.write(written)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def got(self, url):
        self.seen[f"GET {url.path}"] += 1
        if self.fails:
            return 500, {"detail": "down"}
        if url.path == "/info":
            return 200, {"version": "0.13.0"}
        asked = parse_qs(url.query)
        found = [row for row in self.rows if row["run_id"] in asked["run"]]
        first, size = int(asked["offset"][0]), int(asked["limit"][0])
        return 200, found[first : first + size]

    def posted(self, url, row):
        self.seen[f"POST {url.path}"] += 1
        self.rows.append(row)
        return 200, row

    def say(self, run_id, key, score):
        at = START.isoformat()
        self.rows.append(
            {
                "id": str(uuid4()),
                "run_id": str(run_id),
                "trace_id": str(run_id),
                "key": key,
                "score": score,
                "created_at": at,
                "modified_at": at,
                "feedback_source": {"type": "app", "user_id": str(uuid4())},
            }
        )


@pytest.fixture
def server():
    running = Server()
    yield running
    running.close()


def connected(server):
    # The session is passed so that it can be closed: a socket left open warns.
    session = requests.Session()
    client = Client(
        server.url,
        api_key="key",
        session=session,
        auto_batch_tracing=False,
        retry_config=Retry(0),
        info=LangSmithInfo(version="0.13.0"),
        timeout_ms=5_000,
    )
    return client, session


@pytest.fixture
def real_client(server):
    client, session = connected(server)
    yield client
    session.close()


@pytest.mark.network
def test_the_real_client_sends_feedback_to_the_server(model, runs, server, real_client):
    mirror = LangSmithFeedback(model, real_client)
    made = mirror.create_feedback(
        runs[0], "thumbs", score=True, comment="good", session_id=SESSION
    )
    assert isinstance(made, Feedback)
    (row,) = server.rows
    assert (row["run_id"], row["key"], row["score"]) == (str(runs[0]), "thumbs", True)
    assert row["comment"] == "good"
    assert len(model.told) == 1
    assert mirror.pull() == 0


@pytest.mark.network
def test_the_real_client_pulls_what_users_said(model, runs, server, real_client):
    mirror = LangSmithFeedback(model, real_client)
    server.say(runs[0], "thumbs", 0.0)
    server.say(uuid4(), "thumbs", 1.0)
    assert mirror.pull() == 1
    assert model.told == [(runs[0], 0.0, "binary", "langsmith:thumbs")]
    assert mirror.pull() == 0


@pytest.mark.network
def test_the_real_client_pulls_all_pages(server, real_client):
    model = StandIn(uuid4() for _ in range(60))
    for run_id in model.known:
        server.say(run_id, "a", 0.5)
        server.say(run_id, "b", 1.0)
    assert LangSmithFeedback(model, real_client).pull() == 120
    assert server.seen["GET /feedback"] == 2


@pytest.mark.network
def test_a_server_that_fails_breaks_no_pull(model, server, real_client, caplog):
    server.fails = True
    assert LangSmithFeedback(model, real_client).pull() == 0
    assert "LangSmithAPIError" in caplog.text


@pytest.mark.network
def test_a_server_that_is_gone_breaks_no_pull(model, caplog):
    server = Server()
    client, session = connected(server)
    server.close()
    assert LangSmithFeedback(model, client).pull() == 0
    assert "LangSmithConnectionError" in caplog.text
    session.close()


class TestRoutedModel:
    """The runs of a real routed model."""

    @pytest.fixture(params=["chain", "parent", "llm"])
    def answered(self, request, pool, recorder):
        """Return a routed model that has answered, and the id of a run of it."""
        routed = pool()
        (RunnablePassthrough() | routed).invoke("q", {"callbacks": [recorder]})
        (llm,) = recorder.of("llm")
        if request.param == "llm":
            return routed, recorder.id_of(llm)
        if request.param == "chain":
            return routed, llm["parent"]
        return routed, recorder.runs[llm["parent"]]["parent"]

    def test_feedback_on_each_of_its_runs_teaches_the_router(self, answered, client):
        routed, run_id = answered
        mirror = LangSmithFeedback(routed, client)
        mirror.create_feedback(run_id, "thumbs", score=True)
        assert mirror.counts == MirrorCounts(recorded=1)
        (pending,) = routed.router._ledger._pending.values()
        (feedback,) = pending.feedback.values()
        assert feedback.reward == 1.0
        assert feedback.source == "langsmith:thumbs"

    def test_what_was_said_of_its_runs_is_pulled(self, answered, client):
        routed, run_id = answered
        mirror = LangSmithFeedback(routed, client)
        client.say(run_id, score=0.0)
        assert mirror.pull() == 1
        assert mirror.pull() == 0

    def test_it_asks_for_its_latest_runs(self, pool, recorder, client):
        routed = pool()
        for _ in range(3):
            routed.invoke("q", {"callbacks": [recorder]})
        LangSmithFeedback(routed, client).pull(max_runs=2)
        ((asked, _),) = client.asked
        assert len(asked) == 2
        assert set(asked) <= set(recorder.runs)
        assert all(isinstance(run_id, UUID) for run_id in asked)
