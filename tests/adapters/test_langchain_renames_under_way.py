"""What is under way, and who shares a router, when a candidate gets another name."""

import copy
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage

from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.langchain import MixLLMChatModel, RoutingRule

SECRET = "Write to ann@example.org"
PRIVATE = RoutingRule(
    when=re.compile(r"[\w.]+@[\w.]+"), among=["second"], name="personal data"
)


def record(answer):
    return answer.response_metadata["mixllm"]


def who(model, prompt="q", **given):
    return record(model.invoke(prompt, **given))["candidate"]


def in_router(model):
    return [candidate.name for candidate in model.router.candidates]


class Gate:
    """Holds a scripted candidate's answer back until it is opened."""

    def __init__(self, answer="From the best."):
        self._answer = answer
        self._entered, self._open = threading.Event(), threading.Event()

    def __call__(self, messages):
        self._entered.set()
        assert self._open.wait(10)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def during(self, act, ask, *args, **kwargs):
        """Return what `ask` returns, if `act` is called while it is answered."""
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(ask, *args, **kwargs)
            assert self._entered.wait(10)
            try:
                act()
            finally:
                self._open.set()
            return answer.result(10)


class TestCallsUnderWay:
    """A call that began under the old name ends as if nothing had happened."""

    def test_its_answer_is_paid_for_and_learned_from(self, pool):
        gate = Gate()
        model = pool(best={"answers": gate})
        rename = lambda: model.rename_candidate("best", "star")  # noqa: E731
        answer = gate.during(rename, model.invoke, "q")
        assert record(answer)["candidate"] == "best"
        assert record(answer)["cost"] == pytest.approx(10 * 1e-6 + 2 * 2e-6)
        assert record(answer)["attempts"] == []
        assert model.record_feedback(answer, 1.0)

    def test_its_failure_lets_the_new_name_rest_and_is_not_tried_again(
        self, pool, asked, load_of
    ):
        gate = Gate(ConnectionError("down"))
        model = pool(best={"answers": gate})
        rename = lambda: model.rename_candidate("best", "star")  # noqa: E731
        answer = gate.during(rename, model.invoke, "q")
        assert answer.content == "From the second."
        assert len(asked(model, "star")) == 1
        assert who(model) == "second"
        assert list(model.dispatcher.cooldown.due()) == ["star"]
        assert load_of(model) == 0

    def test_a_probe_that_ends_under_the_new_name_ends_the_rest(self, pool):
        gate = Gate()
        model = pool(best={"answers": gate}, cooldown_seconds=0.01)
        model.dispatcher.cooldown.start("best")
        threading.Event().wait(0.02)
        rename = lambda: model.rename_candidate("best", "star")  # noqa: E731
        gate.during(rename, model.invoke, "q")
        assert not model.dispatcher.cooldown.due()
        assert who(model) == "star"

    def test_it_is_asked_though_renamed_between_decision_and_call(self, pool):
        class Renaming(BaseCallbackHandler):
            def on_chain_start(self, *args, **kwargs):
                model.rename_candidate("best", "star")

        model = pool()
        answer = model.invoke("q", config={"callbacks": [Renaming()]})
        assert answer.content == "From the best."
        assert record(answer)["attempts"] == []

    def test_its_session_is_remembered_under_the_new_name(self, pool):
        gate = Gate()
        model = pool(best={"answers": gate})
        rename = lambda: model.rename_candidate("best", "star")  # noqa: E731
        gate.during(rename, model.invoke, "q", session_id="s")
        assert list(model.dispatcher.sessions.head_start("s")) == ["star"]

    def test_a_stream_goes_on(self, pool):
        model = pool()
        stream = model.stream("q")
        first = next(stream)
        model.rename_candidate("best", "star")
        *_, last = (whole := [first, *stream])
        assert "".join(chunk.content for chunk in whole) == "From the best."
        assert record(last)["cost"] > 0

    def test_a_rule_may_be_thinking_meanwhile(self, pool):
        def thinking(messages):
            if "second" in model.names():
                model.rename_candidate("second", "local")
            return True

        rules = [RoutingRule(when=thinking, among=["second"])] * 2
        model = pool(rules=rules)
        assert who(model) == "local"

    def test_who_cannot_answer_is_not_asked_under_the_new_name(
        self, scripted_candidate
    ):
        def thinking(messages):
            if "blind" in model.names():
                model.rename_candidate("blind", "renamed")
            return False

        facts = {"profile": {"pdf_inputs": False}}
        model = MixLLMChatModel(
            candidates=[
                scripted_candidate("blind", quality=0.9, facts=facts),
                scripted_candidate("sees", quality=0.1),
            ],
            rules=[RoutingRule(when=thinking, among=["sees"])],
        )
        file = {"type": "file", "mime_type": "application/pdf", "base64": "AAAA"}
        assert who(model, [HumanMessage(["What is this?", file])]) == "sees"

    def test_calls_in_many_threads_never_notice(self, pool):
        model = pool(
            rules=[RoutingRule(when=re.compile("secret"), among=["best"], name="r")]
        )
        models = [model, model.model_copy(update={"cooldown_seconds": 7.0})]
        names = ["best", "a", "b"]
        stop = threading.Event()

        def ask(asked, prompt, given):
            while not stop.is_set():
                answer = asked.invoke(prompt, session_id="s", **given)
                assert answer.content == "From the best."
                assert record(answer)["cost"] > 0
                assert asked.record_feedback(answer, 1.0)

        with ThreadPoolExecutor(6) as threads:
            asking = [
                threads.submit(ask, one, prompt, given)
                for one in models
                for prompt, given in [
                    ("q", {}),
                    ("a secret", {}),
                    ("q", {"model": "best-2024"}),
                ]
            ]
            try:
                for n in range(30):
                    old, new = names[n % 3], names[(n + 1) % 3]
                    models[n % 2].rename_candidate(old, new)
                    stop.wait(0.01)
            finally:
                stop.set()
            for one in asking:
                one.result(10)
        assert in_router(model) == ["second", "best"]


class TestModelsOfOneRouter:
    """Whoever shares the router follows."""

    @pytest.mark.parametrize(
        "copied",
        [
            copy.copy,
            copy.deepcopy,
            lambda model: model.model_copy(update={"temperature": 0.5}),
            lambda model: model.model_copy(update={"cooldown_seconds": 7.0}),
            lambda model: MixLLMChatModel(
                candidates=model.candidates, router=model.router, rules=model.rules
            ),
        ],
    )
    def test_copies_and_other_models_call_it_by_the_new_name(self, pool, copied):
        model = pool(rules=[PRIVATE])
        other = copied(model)
        model.rename_candidate("second", "local")
        assert who(other, SECRET) == "local"
        assert other.names() == ("local", "best")
        other.rename_candidate("local", "cellar")
        assert who(model, SECRET) == "cellar"

    def test_a_failure_that_another_dispatcher_noted_counts_on(self, pool):
        model = pool(best={"errors": [ConnectionError("down")]})
        other = model.model_copy(update={"cooldown_seconds": 7.0})
        assert who(other) == "second"
        model.rename_candidate("best", "star")
        assert who(other) == "second"
        assert who(model) == "star"

    def test_a_model_with_other_candidates_is_as_it_was(self, pool, scripted_candidate):
        model = pool()
        other = MixLLMChatModel(
            candidates=[scripted_candidate("third")], router=model.router
        )
        model.rename_candidate("best", "star")
        assert other.names() == ("third",)
        assert who(other) == "third"

    def test_a_model_made_at_run_time_has_the_new_name(self, pool):
        from langchain_core.runnables import ConfigurableField

        model = pool()
        limited = model.configurable_fields(max_tokens=ConfigurableField(id="limit"))
        model.rename_candidate("best", "star")
        assert who(limited, config={"configurable": {"limit": 2}}) == "star"
        assert in_router(model) == ["second", "star"]

    def test_a_new_model_may_give_the_old_name_to_another_candidate(
        self, pool, scripted_candidate
    ):
        model = pool()
        model.rename_candidate("best", "star")
        other = MixLLMChatModel(
            candidates=[scripted_candidate("best", answers=["Another."])],
            router=model.router,
        )
        assert other.invoke("q").content == "Another."
        model.router.remove_candidate("best")
        assert model.dispatcher.renames.current("best") == "best"

    def test_a_copy_that_gets_another_router_takes_the_new_name_along(self, pool):
        model = pool()
        other = model.model_copy()
        model.rename_candidate("best", "star")
        other.router = Router([Candidate("third", 1, 2)])
        assert in_router(other) == ["third", "second", "star"]
        assert who(other) == "star"

    def test_a_new_router_begins_without_a_past(self, pool):
        model, other = pool(), pool()
        model.rename_candidate("best", "star")
        other.rename_candidate("best", "sun")
        model.router = other.router
        assert in_router(other) == ["second", "sun", "star"]
        assert model.names() == ("second", "star")
        model.rename_candidate("star", "moon")
        assert model.names() == ("second", "moon")
        assert in_router(model) == ["second", "sun", "moon"]
        assert other.names() == ("second", "sun")
