"""What is kept under a candidate's name goes with it to another one."""

import gc
import weakref

import pytest

from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving import CacheUse, CallOptions, Dispatcher
from mixllm_integrations.serving.naming import renames_of
from mixllm_integrations.serving.prices import CachePrice


class TooLongError(Exception):
    """What a provider raises whose model cannot read so much."""

    code = "context_length_exceeded"


@pytest.fixture
def renames(dispatcher):
    return dispatcher.renames


def test_a_router_has_one_for_all_its_dispatchers(ranked_router, dispatcher):
    assert renames_of(ranked_router) is dispatcher.renames
    assert Dispatcher(ranked_router).renames is dispatcher.renames
    assert renames_of(Router([Candidate("best", 1, 2)])) is not dispatcher.renames


def test_routers_and_dispatchers_are_not_kept_alive():
    router = Router([Candidate("best", 1, 2)])
    dispatcher = Dispatcher(router)
    dispatcher.renames.rename("best", "star")
    gone = weakref.ref(router), weakref.ref(dispatcher)
    del router, dispatcher
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_prices_of_the_cache_go_with_it(dispatcher, renames):
    dispatcher.know_cache("best", CachePrice(saving=0.5e-6, surcharge=0.25e-6))
    cache = CacheUse(read=4_000, written=1_000)
    cost = dispatcher.charge("best", 10_000, 0, cache)
    assert cost == pytest.approx(10_000e-6 - 4_000 * 0.5e-6 + 1_000 * 0.25e-6)
    renames.rename("best", "star")
    assert dispatcher.charge("star", 10_000, 0, cache) == cost
    assert dispatcher.charge("best", 10_000, 0, cache) == cost  # of a call under way


def test_what_its_cache_is_worth_goes_with_it(dispatcher, renames):
    sessions = dispatcher.sessions
    dispatcher.know_cache("best", CachePrice(saving=1e-6))
    sessions.note("s", "best", 4_000)
    sessions.note("s", "best", 4_000, cached=0)  # so half of them, or so, are there
    (discount,) = sessions.discounts("s", 5_000).values()
    assert discount < 0.004
    renames.rename("best", "star")
    assert sessions.discounts("s", 5_000) == {"star": discount}


def test_who_answered_last_in_a_session_is_the_last(dispatcher, renames):
    sessions = dispatcher.sessions
    for name in ("best", "worst", "middle"):
        sessions.note("s", name, 4_000)
    renames.rename("best", "star")
    assert list(sessions.head_start("s")) == ["middle"]
    renames.rename("middle", "mean")
    assert list(sessions.head_start("s")) == ["mean"]


def test_what_a_removed_one_of_that_name_left_behind_is_forgotten(dispatcher, renames):
    dispatcher.cooldown.start("worst")
    dispatcher.router.remove_candidate("worst")
    renames.rename("best", "worst")
    assert not dispatcher.cooldown.due()


def test_who_failed_is_not_tried_again_under_the_new_name(dispatcher, renames):
    call = dispatcher.begin("q", options=CallOptions(prefer="best"))
    renames.rename("best", "star")
    assert call.candidate == "best"
    assert call.fail(ConnectionError("down"))
    assert call.candidate == "middle"
    assert list(dispatcher.cooldown.due()) == ["star"]
    call.abandon()


def test_who_reads_no_more_than_it_does_is_not_tried_either(clock):
    router = Router(
        [
            Candidate("best", 1, 2, prior_quality=0.9, context_window=8_000),
            Candidate("second", 1, 2, prior_quality=0.5, context_window=8_000),
            Candidate("third", 1, 2, prior_quality=0.1, context_window=9_000),
        ],
        exploration=0.0,
        clock=clock,
    )
    dispatcher = Dispatcher(router, clock=clock)
    call = dispatcher.begin("q")
    dispatcher.renames.rename("best", "star")
    assert call.fail(TooLongError())
    assert call.candidate == "third"
    call.abandon()


def test_a_call_may_name_it_by_the_name_that_it_had_a_moment_ago(dispatcher, renames):
    renames.rename("best", "star")
    for options in (CallOptions(candidate="best"), CallOptions(shadow="best")):
        for among in (None, ["middle", "best"], ["middle", "star"]):
            call = dispatcher.begin("q", among=among, options=options)
            assert call.candidate == "star"
            call.abandon()


def test_a_name_leads_round_in_a_circle_to_the_one_that_is_there(renames):
    for old, new in [("best", "b"), ("b", "c"), ("c", "best"), ("best", "b")]:
        renames.rename(old, new)
        assert renames.current(old) == renames.current(new) == new
    assert [renames.current(name) for name in ("best", "b", "c")] == ["b", "b", "b"]


def test_a_name_that_leads_to_nobody_stays_what_it_is(dispatcher, renames):
    renames.rename("best", "star")
    dispatcher.router.remove_candidate("star")
    assert renames.current("best") == "best"


def test_a_newcomers_name_stands_for_the_newcomer(dispatcher, renames):
    renames.rename("best", "star")
    renames.rename("star", "sun")
    renames.taken(["star", "sun"])  # the latter is none
    dispatcher.router.add_candidate(Candidate("star", 1, 2))
    assert renames.current("star") == "star"
    assert renames.current("best") == "sun"
    dispatcher.router.remove_candidate("star")
    assert renames.current("star") == "star"


def test_a_rename_that_fails_leaves_no_trace(dispatcher, renames):
    for new, error in [("middle", ConfigurationError), ("", ConfigurationError)]:
        with pytest.raises(error):
            renames.rename("best", new)
    with pytest.raises(UnknownCandidateError, match="'top'; the router has: 'worst'"):
        renames.rename("top", "star")
    assert not renames
    assert renames.log == ()
    assert dispatcher.names() == ("worst", "best", "middle")


def test_one_that_was_renamed_in_the_router_is_renamed_here(dispatcher, renames):
    dispatcher.cooldown.start("best")
    dispatcher.router.rename_candidate("best", "star")
    renames.rename("best", "star")
    assert list(dispatcher.cooldown.due()) == ["star"]
    assert renames.current("best") == "star"
