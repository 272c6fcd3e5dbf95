"""What it is worth to stay with who has read the conversation before."""

import threading

import pytest

from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving import CacheUse, CallOptions, Dispatcher
from mixllm_integrations.serving.prices import CachePrice, cache_price
from mixllm_integrations.serving.sessions import Sessions


@pytest.fixture
def sessions(clock):
    sessions = Sessions(clock=clock, capacity=3)
    sessions.saving_per_token["small"] = 1e-6
    return sessions


def test_a_session_nobody_knows_saves_nothing(sessions):
    assert sessions.discounts("s", 5_000) == {}
    assert sessions.head_start("s") == {}


def test_what_was_read_before_is_saved_on_the_next_prompt(sessions):
    sessions.note("s", "small", 4_000)
    assert sessions.discounts("s", 5_000) == {"small": pytest.approx(0.004)}


def test_no_more_is_saved_than_the_prompt_is_long(sessions):
    sessions.note("s", "small", 4_000)
    assert sessions.discounts("s", 2_000) == {"small": pytest.approx(0.002)}
    assert sessions.discounts("s", None) == {}


def test_a_prompt_too_short_for_any_cache_saves_nothing(sessions):
    sessions.note("s", "small", 4_000)
    assert sessions.discounts("s", 1_023) == {}


def test_whose_provider_gives_no_discount_saves_nothing(sessions):
    sessions.note("s", "dear", 4_000)
    assert sessions.discounts("s", 5_000) == {}


def test_after_five_minutes_the_cache_is_cold(sessions, clock):
    sessions.note("s", "small", 4_000)
    clock.advance(299.0)
    assert sessions.discounts("s", 5_000)
    clock.advance(1.0)
    assert sessions.discounts("s", 5_000) == {}
    assert set(sessions.head_start("s")) == {"small"}  # the voice is still the same


def test_the_head_start_is_that_of_who_answered_last(sessions):
    sessions.note("s", "small", 10)
    sessions.note("s", "dear", 10)
    assert set(sessions.head_start("s")) == {"dear"}
    sessions.note("s", "small", 10)
    assert set(sessions.head_start("s")) == {"small"}


def test_two_who_have_read_it_both_save(sessions):
    sessions.saving_per_token["dear"] = 2e-6
    sessions.note("s", "small", 4_000)
    sessions.note("s", "dear", 3_000)
    assert set(sessions.discounts("s", 5_000)) == {"small", "dear"}


def test_sessions_do_not_mix(sessions):
    sessions.note("s", "small", 4_000)
    assert sessions.discounts("t", 5_000) == {}


def test_the_sessions_used_longest_ago_are_forgotten(sessions):
    for name in ("a", "b", "c"):
        sessions.note(name, "small", 4_000)
    sessions.note("a", "small", 4_000)
    sessions.note("d", "small", 4_000)
    kept = [name for name in "abcd" if sessions.head_start(name)]
    assert kept == ["a", "c", "d"]


def test_a_provider_that_keeps_nothing_is_found_out(sessions):
    for _ in range(12):
        sessions.note("s", "small", 4_000, cached=0)
    assert sessions.discounts("s", 4_000).get("small", 0.0) < 0.0001


def test_a_provider_that_does_not_tell_is_believed(sessions):
    for _ in range(12):
        sessions.note("s", "small", 4_000, cached=None)
    assert sessions.discounts("s", 4_000) == {"small": pytest.approx(0.004)}


def test_short_prompts_tell_nothing_of_the_cache(sessions):
    for _ in range(12):
        sessions.note("s", "small", 500, cached=0)
    sessions.note("s", "small", 4_000)
    assert sessions.discounts("s", 4_000) == {"small": pytest.approx(0.004)}


def test_sessions_are_noted_from_several_threads(sessions):
    def note(name):
        for number in range(300):
            sessions.note(f"{name}{number % 7}", "small", number)
            sessions.discounts(f"{name}{number % 7}", 100)

    threads = [threading.Thread(target=note, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sessions._read) == 3


# --- in the dispatcher ----------------------------------------------------------


@pytest.fixture
def two(clock):
    """Return a dispatcher over two: the second is better by 10 points and dearer."""
    router = Router(
        [
            Candidate("small", 2.0, 0.0, prior_quality=0.50),
            Candidate("better", 2.5, 0.0, prior_quality=0.60),
        ],
        exploration=0.0,
        prior="none",
        clock=clock,
        willingness_to_pay=0.01,
    )
    dispatcher = Dispatcher(router, clock=clock)
    dispatcher.know_cache("small", CachePrice(saving=1.8e-6))
    return dispatcher


def answered(dispatcher, tokens, **options):
    call = dispatcher.begin("q", input_tokens=tokens, options=CallOptions(**options))
    call.succeed(input_tokens=tokens, output_tokens=10)
    return call.candidate


def test_a_warm_cache_worth_more_than_the_advantage_keeps_the_session(two):
    # 0.10 of quality are worth 0.001 USD; 4,000 warm tokens save 0.0072.
    assert answered(two, 100) == "better"
    assert answered(two, 4_000, session="s", candidate="small") == "small"
    assert answered(two, 5_000, session="s") == "small"


def test_without_a_session_the_scores_decide(two):
    answered(two, 4_000, session="s", candidate="small")
    assert answered(two, 100) == "better"
    assert answered(two, 100, session="another") == "better"


def test_an_advantage_worth_more_than_the_warm_cache_ends_it(two):
    # 300 warm tokens save 0.00054 USD and the same voice 0.0002; 0.001 is more.
    answered(two, 300, session="s", candidate="small")
    assert answered(two, 310, session="s") == "better"


def test_a_cold_cache_keeps_nobody(two, clock):
    answered(two, 4_000, session="s", candidate="small")
    assert answered(two, 1_100, session="s") == "small"
    clock.advance(301.0)
    assert answered(two, 500, session="s") == "better"


def test_a_sessions_candidate_that_failed_does_not_hold_it(two):
    answered(two, 4_000, session="s", candidate="small")
    call = two.begin("q", input_tokens=5_000, options=CallOptions(session="s"))
    assert call.candidate == "small"
    assert call.fail(TimeoutError())
    assert call.candidate == "better"


def test_the_session_stands_in_the_record(two):
    call = two.begin("q", options=CallOptions(session="s"))
    assert call.succeed(input_tokens=1, output_tokens=1)["session"] == "s"


def test_tokens_out_of_the_cache_cost_what_they_cost_there(two):
    call = two.begin("q", options=CallOptions(candidate="small"))
    record = call.succeed(
        input_tokens=10_000, output_tokens=0, cache=CacheUse(read=8_000)
    )
    assert record["cost"] == pytest.approx(2_000 * 2e-6 + 8_000 * 0.2e-6)


def test_tokens_put_into_the_cache_cost_more(two):
    two.know_cache("small", CachePrice(saving=1.8e-6, surcharge=0.5e-6))
    call = two.begin("q", options=CallOptions(candidate="small"))
    record = call.succeed(
        input_tokens=10_000, output_tokens=0, cache=CacheUse(written=8_000)
    )
    assert record["cost"] == pytest.approx(10_000 * 2e-6 + 8_000 * 0.5e-6)


# --- prices ---------------------------------------------------------------------


def price_of(model, **facts):
    settings = {"provider": None, "input_cost": 2.0, "declared_read_cost": None}
    return cache_price(model, **settings | facts)


def test_the_saving_is_the_difference_of_the_list_prices():
    found = price_of("gpt-4.1", provider="openai", input_cost=2.0)
    assert found == CachePrice(saving=pytest.approx(1.5e-6))


def test_a_price_of_ones_own_has_the_same_share_of_it():
    found = price_of("gpt-4.1", provider="openai", input_cost=1.0)
    assert found.saving == pytest.approx(0.75e-6)


def test_what_is_put_into_the_cache_may_cost_more():
    found = price_of("claude-haiku-4-5", provider="anthropic", input_cost=1.0)
    assert found.saving == pytest.approx(0.9e-6)
    assert found.surcharge == pytest.approx(0.25e-6)


def test_a_declared_price_goes_before_the_list():
    found = price_of("gpt-4.1", provider="openai", declared_read_cost=1.0)
    assert found.saving == pytest.approx(1e-6)


def test_a_model_nobody_knows_has_no_cache_unless_declared():
    assert price_of("my-own") == CachePrice()
    assert price_of(None, declared_read_cost=0.5).saving == pytest.approx(1.5e-6)


def test_a_cache_dearer_than_the_input_saves_nothing():
    assert price_of(None, declared_read_cost=9.0) == CachePrice()
