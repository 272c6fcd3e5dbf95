"""A candidate goes on under another name, wherever it was known by the old one."""

import pickle
import re

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from mixllm_integrations.core.errors import (
    ConfigurationError,
    NoCandidateError,
    UnknownCandidateError,
)
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel, RoutingRule
from mixllm_integrations.testing import ScriptedChatModel

SECRET = "Write to ann@example.org"
PRIVATE = RoutingRule(
    when=re.compile(r"[\w.]+@[\w.]+"), among=["second"], name="personal data"
)
LONG = "word " * 3_000


def record(answer):
    return answer.response_metadata["mixllm"]


def who(model, prompt="q", **given):
    return record(model.invoke(prompt, **given))["candidate"]


def in_router(model):
    return [candidate.name for candidate in model.router.candidates]


class TestTheNewName:
    """What was set, learned and noted under the old name holds for the new one."""

    def test_it_answers_and_is_the_only_one_that_is_known(self, pool):
        model = pool()
        model.rename_candidate("best", "star")
        assert who(model) == "star"
        assert model.names() == ("second", "star")
        assert in_router(model) == ["second", "star"]
        assert model.among() is None

    def test_what_was_learned_is_kept(self, pool):
        model = pool()
        for _ in range(40):
            good = model.invoke("q").content == "From the second."
            model.record_feedback(model.invoke("q"), 1.0 if good else 0.0)
        before = model.router.predict(["q"])
        model.rename_candidate("best", "star")
        after = model.router.predict(["q"])
        assert after.candidates == ("second", "star")
        assert after.quality.tolist() == before.quality.tolist()
        assert before.quality[0, 1] < 0.85  # it was 0.9 at first

    def test_an_answer_given_under_the_old_name_takes_feedback(self, pool):
        model = pool()
        answer = model.invoke("q")
        expected = model.router.predict(["q"]).quality[0, 1]
        model.rename_candidate("best", "star")
        assert model.record_feedback(answer, 0.0)
        assert model.router.predict(["q"]).quality[0, 1] < expected

    def test_a_rule_that_names_it_goes_on_to_hold(self, pool):
        model = pool(rules=[PRIVATE])
        model.rename_candidate("second", "local")
        assert who(model, SECRET) == "local"
        assert who(model) == "best"
        with pytest.raises(NoCandidateError, match="allows only 'local'"):
            model.invoke(SECRET, candidate="best")
        assert PRIVATE.among == ["second"]  # the caller's own is as it was

    def test_it_is_forced_by_the_new_name_and_unknown_by_the_old_one(self, pool):
        model = pool()
        model.rename_candidate("second", "local")
        assert who(model, candidate="local") == "local"
        told = (
            "unknown candidate 'second'; this model has: 'local', 'best'; "
            "the router has: 'local', 'best'"
        )
        for given in ("candidate", "shadow"):
            with pytest.raises(UnknownCandidateError) as caught:
                model.invoke("q", **{given: "second"})
            assert str(caught.value) == told

    def test_its_models_own_name_goes_on_to_stand_for_it(self, pool):
        model = pool()
        model.rename_candidate("second", "local")
        answer = model.invoke("q", model="second-2024")
        assert record(answer)["candidate"] == "local"

    def test_who_is_shadowed_goes_on_to_answer(self, pool):
        model = pool(shadow="second")
        model.invoke("q")
        model.rename_candidate("second", "local")
        assert who(model) == "local"
        assert model.shadow == "local"

    def test_a_session_stays_with_it(self, scripted_candidate):
        facts = {"cached_input_cost_per_million_tokens": 0.2}
        long = (3_000, 2)
        one = scripted_candidate("one", price=2.0, usage=long, facts=facts)
        two = scripted_candidate("two", price=2.0, usage=long, quality=0.6)
        model = MixLLMChatModel(candidates=[one, two], willingness_to_pay=0.01)
        model.router.exploration = 0.0
        assert who(model, LONG, candidate="one", session_id="s") == "one"
        model.rename_candidate("one", "uno")
        thread = [HumanMessage(LONG), AIMessage("1"), HumanMessage("and now?")]
        assert who(model, thread, session_id="s") == "uno"
        assert who(model, thread, session_id="another") == "two"

    def test_it_rests_after_a_failure(self, pool):
        model = pool(best={"errors": [ConnectionError("down")]})
        assert who(model) == "second"
        model.rename_candidate("best", "star")
        assert who(model) == "second"

    def test_its_cache_of_prompts_has_its_price(self):
        usage = {
            "input_tokens": 10_000,
            "output_tokens": 0,
            "total_tokens": 10_000,
            "input_token_details": {"cache_read": 8_000, "cache_creation": 1_000},
        }

        class Caching(ScriptedChatModel):
            def _usage(self, messages, answer):
                return usage

        # A list price with a surcharge for what is put into the cache.
        claude = Caching(model="claude-sonnet-4-5", provider="anthropic", answers=["1"])
        model = MixLLMChatModel(candidates=[CandidateModel(model=claude, name="one")])
        cost = record(model.invoke("q"))["cost"]
        assert cost == pytest.approx(1_000 * 3e-6 + 8_000 * 0.3e-6 + 1_000 * 3.75e-6)
        model.rename_candidate("one", "uno")
        assert record(model.invoke("q"))["cost"] == cost

    def test_a_loop_of_tool_calls_that_it_began_goes_on_with_it(self, pool):
        model = pool()
        call = {"name": "find", "args": {}, "id": "1"}
        began = model.invoke("q", candidate="second")
        model.rename_candidate("second", "local")
        thread = [
            HumanMessage("q"),
            began.model_copy(update={"tool_calls": [call]}),
            ToolMessage("found", tool_call_id="1"),
        ]
        assert who(model, thread) == "local"

    def test_it_may_be_removed_by_the_new_name_only(self, pool):
        model = pool()
        model.rename_candidate("best", "star")
        with pytest.raises(UnknownCandidateError, match="'best'"):
            model.remove_candidate("best")
        model.remove_candidate("star")
        assert in_router(model) == ["second"]

    def test_the_old_name_is_free_for_a_newcomer(self, pool, scripted_candidate):
        model = pool(rules=[PRIVATE])
        model.rename_candidate("second", "local")
        model.add_candidate(scripted_candidate("second", answers=["Another."]))
        assert model.invoke("q", candidate="second").content == "Another."
        assert model.invoke("q", candidate="local").content == "From the second."
        assert who(model, SECRET) == "local"
        model.router.remove_candidate("second")
        with pytest.raises(UnknownCandidateError):  # no alias of "local" any more
            model.invoke("q", candidate="second")

    def test_two_may_exchange_their_names(self, pool):
        model = pool(rules=[PRIVATE])
        model.rename_candidate("best", "third")
        model.rename_candidate("second", "best")
        model.rename_candidate("third", "second")
        assert model.invoke("q").content == "From the best."
        assert who(model) == "second"
        assert model.invoke(SECRET).content == "From the second."
        assert model.names() == ("best", "second")

    def test_a_pickled_copy_has_it(self, pool):
        model = pool(rules=[PRIVATE])
        model.rename_candidate("second", "local")
        other = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own
        assert who(other, SECRET) == "local"
        other.rename_candidate("local", "cellar")
        assert who(other, SECRET) == "cellar"
        assert who(model, SECRET) == "local"


class TestErrors:
    """What cannot be done is said, and nothing has changed then."""

    def test_an_unknown_old_name(self, pool):
        with pytest.raises(
            UnknownCandidateError, match=r"'top'; this model has: 'second', 'best'"
        ):
            pool().rename_candidate("top", "star")

    @pytest.mark.parametrize("new", ["second", "best", "elsewhere"])
    def test_a_new_name_that_is_taken(self, pool, new):
        model = pool()
        model.router.add_candidate(Candidate("elsewhere", 0, 0))
        with pytest.raises(ConfigurationError, match=f"'{new}'"):
            model.rename_candidate("best", new)
        assert model.names() == ("second", "best")
        assert in_router(model) == ["second", "best", "elsewhere"]
        assert who(model) == "best"

    def test_a_new_name_that_another_seat_has_whose_candidate_has_left(self, pool):
        model = pool()
        model.router.remove_candidate("second")
        with pytest.raises(ConfigurationError, match="'second'"):
            model.rename_candidate("best", "second")
        assert in_router(model) == ["best"]

    @pytest.mark.parametrize("new", ["", " ", None, 7, ["star"]])
    def test_a_new_name_that_is_none(self, pool, new):
        model = pool()
        with pytest.raises(ConfigurationError, match="non-empty string"):
            model.rename_candidate("best", new)
        assert who(model) == "best"

    def test_one_that_has_left_the_router(self, pool):
        model = pool()
        model.router.remove_candidate("best")
        with pytest.raises(UnknownCandidateError, match="the router has: 'second'"):
            model.rename_candidate("best", "star")
        assert who(model) == "second"

    def test_they_travel_between_processes_as_they_are(self, pool):
        model = pool()
        with pytest.raises(UnknownCandidateError) as caught:
            model.invoke("q", candidate="top")
        other = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
        assert type(other) is type(caught.value)
        assert str(other) == str(caught.value)
        assert (other.name, other.known) == ("top", ("second", "best"))


class TestTheRouterItself:
    """Who renames or removes there is told what the models miss."""

    def test_a_model_that_misses_one_says_so_once(self, pool, caplog):
        model = pool()
        model.router.rename_candidate("best", "star")
        for _ in range(3):
            assert who(model) == "second"
            assert who(model.model_copy()) == "second"
        (told,) = caplog.messages
        assert told.startswith(
            "candidate 'best' of this model is not asked any more: it was removed from "
            "the router, or renamed there; the router has: 'second', 'star'."
        )
        assert "rename_candidate('best', new_name)" in told

    def test_one_that_returns_and_leaves_again_is_missed_again(self, pool, caplog):
        model = pool()
        (facts,) = (c for c in model.router.candidates if c.name == "best")
        for _ in range(2):
            model.router.remove_candidate("best")
            assert who(model) == "second"
            model.router.add_candidate(facts)
            assert who(model) == "best"
        assert len(caplog.messages) == 2

    def test_nothing_is_said_where_the_model_did_it(
        self, pool, scripted_candidate, caplog
    ):
        model = pool()
        model.rename_candidate("best", "star")
        model.add_candidate(scripted_candidate("top"))
        model.remove_candidate("star")
        model.invoke("q")
        assert not caplog.messages

    def test_the_model_follows_when_it_is_told(self, pool, caplog):
        model = pool(rules=[RoutingRule(when=re.compile("secret"), among=["best"])])
        model.router.rename_candidate("best", "star")
        assert who(model) == "second"
        model.rename_candidate("best", "star")
        assert who(model) == "star"
        assert who(model, "a secret") == "star"
        assert len(caplog.messages) == 1
        assert not model.dispatcher.renames.missing

    def test_errors_tell_whom_the_model_has_and_whom_the_router(self, pool):
        model = pool()
        model.router.rename_candidate("best", "star")
        with pytest.raises(UnknownCandidateError) as caught:
            model.invoke("q", candidate="star")
        assert str(caught.value) == (
            "unknown candidate 'star'; this model has: 'second', 'best'; "
            "the router has: 'second', 'star'"
        )
        with pytest.raises(UnknownCandidateError) as caught:
            model.invoke("q", candidate="best")
        assert str(caught.value) == (
            "unknown candidate 'best'; this call may ask: 'second'; "
            "the router has: 'second', 'star'"
        )
        model.router.rename_candidate("second", "local")
        with pytest.raises(NoCandidateError) as caught:
            model.invoke("q")
        why = (
            "it was removed from the router, or renamed there; "
            "the router has: 'local', 'star'"
        )
        assert caught.value.excluded == {"second": why, "best": why}

    def test_a_shadow_that_is_nobody_is_told_whom_model_and_router_have(
        self, pool, scripted_candidate
    ):
        router = pool().router
        with pytest.raises(UnknownCandidateError) as caught:
            MixLLMChatModel(
                candidates=[scripted_candidate("third")], router=router, shadow="top"
            )
        assert str(caught.value).endswith(
            "this model has: 'third'; the router has: 'second', 'best', 'third'"
        )

    def test_an_emptied_router_has_nobody_for_the_model(self, pool):
        model = pool()
        assert who(model) == "best"
        for name in ("second", "best"):
            model.router.remove_candidate(name)
        with pytest.raises(NoCandidateError, match="the router has: none"):
            model.invoke("q")
