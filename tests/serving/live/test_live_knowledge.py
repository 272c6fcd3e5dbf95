"""Two workers: what one knows of candidates and sessions, the other acts on."""

import pytest

from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving.naming import renames_of
from mixllm_integrations.store.live import Load, Told


class TestCooldowns:
    def test_a_candidate_that_failed_here_is_left_alone_there(self, here, there):
        assert here.fails() == "best"
        here.tell(there)
        assert there.answered_by() == "middle"

    def test_it_rests_there_for_as_long_as_here(self, here, there, clock):
        here.fails()
        clock.advance(10.0)
        here.tell(there)
        assert there.cooldown.due() == here.cooldown.due()

    def test_when_it_answers_there_it_is_well_here(self, here, there, clock):
        here.fails()
        here.tell(there)
        clock.advance(31.0)
        call = there.begin("a question")
        assert call.candidate == "best"
        call.succeed(input_tokens=1, output_tokens=1)
        there.tell(here)
        assert not here.cooldown._rests

    def test_a_first_word_there_reopens_it_here_and_keeps_the_failures_in_mind(
        self, here, there, clock
    ):
        here.fails()
        here.tell(there)
        clock.advance(31.0)
        call = there.begin("a question")
        there.look()
        call.first_chunk()
        there.tell(here)
        assert "best" not in here.cooldown.due()
        clock.advance(1.0)
        here.fails()
        assert here.cooldown.due()["best"] == pytest.approx(clock() + 60.0)
        call.abandon()

    def test_failures_in_a_row_on_several_workers_double_the_rest(
        self, here, there, clock
    ):
        here.fails()
        here.tell(there)
        clock.advance(31.0)
        assert there.fails() == "best"
        assert there.cooldown.due()["best"] == pytest.approx(clock() + 60.0)
        there.tell(here)
        assert here.cooldown.due()["best"] == pytest.approx(clock() + 60.0)

    def test_failures_at_once_on_several_workers_are_one(self, here, there, clock):
        here.fails()
        there.fails()
        here.tell(there)
        here.tell(there)
        assert here.cooldown.due()["best"] == there.cooldown.due()["best"]
        assert here.cooldown.due()["best"] == pytest.approx(clock() + 30.0)

    def test_of_all_workers_one_call_is_the_probe(self, here, there, clock):
        here.fails()
        here.tell(there)
        clock.advance(31.0)
        probe = here.begin("a question")
        assert probe.candidate == "best"
        here.tell(there)
        assert there.answered_by() == "middle"
        probe.abandon()
        here.tell(there)
        assert there.answered_by() == "best"

    def test_the_probe_of_a_worker_that_died_is_nobodys(self, here, there, clock):
        here.fails()
        here.tell(there)
        clock.advance(31.0)
        probe = here.begin("a question")
        here.tell(there)
        assert there.answered_by() == "middle"
        clock.advance(2.5)  # and `here` says nothing more
        there.look()
        assert there.answered_by() == "best"
        probe.abandon()

    def test_what_failed_here_and_was_not_told_yet_outlives_older_news(
        self, here, there, clock
    ):
        here.fails()
        here.tell(there)
        clock.advance(31.0)
        call = there.begin("a question")
        call.succeed(input_tokens=1, output_tokens=1)
        there.look()
        clock.advance(0.1)
        here.cooldown.start("best")
        here.look()
        assert "best" in here.cooldown.due()
        there.look()
        assert "best" in there.cooldown.due()

    def test_what_happens_here_while_others_are_heard_is_not_overwritten(
        self, here, there, state, clock
    ):
        there.fails()
        there.look()
        exchange = state.exchange

        def and_meanwhile(told):
            heard = exchange(told)
            here.cooldown.start("best", retry_after_seconds=500.0)
            return heard

        state.exchange = and_meanwhile
        here.look()
        state.exchange = exchange
        assert here.cooldown.due()["best"] == pytest.approx(clock() + 500.0)
        here.tell(there)
        assert there.cooldown.due()["best"] == pytest.approx(clock() + 500.0)

    def test_nobody_tells_of_the_probe_of_another_worker_as_its_own(
        self, here, there, worker, state, clock
    ):
        here.fails()
        here.tell(there)
        clock.advance(31.0)
        probe = here.begin("a question")
        here.tell(there)
        state.clear()
        there.look()
        assert worker().answered_by() == "best"  # `here` has not told again yet
        here.look()
        assert worker().answered_by() == "middle"
        probe.abandon()

    def test_with_cooldowns_off_those_of_others_are_of_no_concern(self, here, quiet):
        here.fails()
        here.look()
        off = quiet(Router([Candidate("best", 1.0, 2.0)]), cooldown_seconds=0.0)
        off.look()
        assert not off.cooldown.due()

    def test_two_dispatchers_over_one_router_hear_each_other(self, here, quiet):
        other = quiet(here.router, cooldown_seconds=10.0)
        assert other.live is here.live
        here.fails()
        here.look()
        assert "best" in other.cooldown.due()

    def test_a_candidate_that_was_renamed_here_is_known_by_its_new_name(
        self, here, there
    ):
        here.fails()
        here.look()
        renames_of(there.router).rename("best", "finest")
        there.look()
        assert "finest" in there.cooldown.due()

    def test_a_rest_is_told_anew_after_a_rename(self, here, there):
        here.fails()
        renames_of(here.router).rename("best", "finest")
        renames_of(there.router).rename("best", "finest")
        here.tell(there)
        assert "finest" in there.cooldown.due()

    def test_a_worker_that_comes_later_knows_at_once_who_rests(self, here, worker):
        here.fails()
        here.look()
        assert worker().answered_by() == "middle"


class TestLoad:
    def test_calls_elsewhere_make_a_candidate_slower_here(self, state, clock, quiet):
        router = Router(
            [
                Candidate(
                    *("best", 1.0, 2.0),
                    prior_quality=0.9,
                    max_concurrency=1,
                    time_to_first_token_seconds=10.0,
                    seconds_per_output_token=0.1,
                ),
                Candidate("middle", 2.0, 4.0, prior_quality=0.5),
            ],
            exploration=0.0,
            waiting_weight=1.0,
            waiting_tolerance_seconds=5.0,
            clock=clock,
        )
        here = quiet(router)
        assert here.answered_by() == "best"
        state.exchange(Told("other", 1, {"best": Load(5, 500.0)}))
        here.look()
        assert here.answered_by() == "middle"
        state.exchange(Told("other", 2, {}))
        here.look()
        assert here.answered_by() == "best"

    def test_what_is_under_way_here_is_told(self, here, state):
        calls = [here.begin("a question") for _ in range(2)]
        here.look()
        heard = state.exchange(Told("other", 1, {}))
        assert heard.loads["best"].calls == 2
        assert heard.loads["best"].tokens > 0
        for call in calls:
            call.succeed(input_tokens=1, output_tokens=1)
        here.look()
        assert state.exchange(Told("other", 2, {})).loads == {}

    def test_load_under_an_old_name_counts_for_the_new_one(self, here, state):
        renames_of(here.router).rename("best", "finest")
        state.exchange(Told("other", 1, {"best": Load(5, 5.0), "finest": Load(1, 1.0)}))
        here.look()
        queue = here.router._waiting._queues["finest"]
        assert (queue.calls_elsewhere, queue.tokens_elsewhere) == (6, 6.0)

    def test_while_the_others_are_away_their_load_is_forgotten_after_two_seconds(
        self, here, state, clock
    ):
        state.exchange(Told("other", 1, {"best": Load(5, 5.0)}))
        here.look()
        state.is_away = True
        clock.advance(1.0)
        here.look()
        assert here.router._waiting._has_elsewhere
        clock.advance(1.0)
        here.look()
        assert not here.router._waiting._has_elsewhere


class TestSessions:
    @pytest.fixture(autouse=True)
    def prices(self, here, there):
        for one in (here, there):
            one.sessions.saving_per_token["middle"] = 1e-3

    def test_who_has_read_a_conversation_elsewhere_is_cheaper_here(self, here, there):
        here.sessions.note("s", "middle", 5_000)
        here.tell(there)
        assert there.sessions.discounts("s", 6_000) == {"middle": pytest.approx(5.0)}
        assert set(there.sessions.head_start("s")) == {"middle"}

    def test_the_last_voice_is_the_last_of_all_workers(self, here, there, clock):
        there.sessions.note("s", "best", 5_000)
        clock.advance(1.0)
        here.sessions.note("s", "middle", 5_000)
        clock.advance(1.0)
        here.look()
        there.sessions.note("s", "best", 6_000)
        there.look()
        here.look()
        for one in (here, there):
            assert set(one.sessions.head_start("s")) == {"best"}

    def test_older_news_do_not_shorten_what_is_known(self, here, there, clock):
        here.sessions.note("s", "middle", 2_000)
        clock.advance(1.0)
        there.sessions.note("s", "middle", 5_000)
        here.tell(there)
        assert there.sessions.discounts("s", 9_000) == {"middle": pytest.approx(5.0)}

    def test_after_five_minutes_the_cache_of_another_worker_is_cold(
        self, here, there, clock
    ):
        here.sessions.note("s", "middle", 5_000)
        here.look()
        clock.advance(299.0)
        there.look()
        assert there.sessions.discounts("s", 6_000)
        clock.advance(2.0)
        assert not there.sessions.discounts("s", 6_000)

    def test_the_name_of_a_session_is_told_to_nobody(self, here, state):
        here.sessions.note("patient Smith", "middle", 5_000)
        here.look()
        assert "Smith" not in repr(state._sessions)
        assert len(state._sessions) == 1

    def test_a_worker_that_comes_later_hears_of_sessions(self, here, worker):
        here.sessions.note("s", "middle", 5_000)
        here.look()
        assert set(worker().sessions.head_start("s")) == {"middle"}

    def test_many_sessions_are_told_in_one_look(self, here, there):
        for i in range(1_700):
            here.sessions.note(f"s{i}", "middle", 5_000)
        here.tell(there)
        assert there.sessions.head_start("s0")
        assert there.sessions.head_start("s1699")

    def test_while_the_others_are_away_no_more_is_kept_than_sessions_are_remembered(
        self, here, state
    ):
        state.is_away = True
        here.sessions._capacity = 10
        for i in range(50):
            here.sessions.note(f"s{i}", "middle", 5_000)
        here.look()
        here.sessions.note("last", "middle", 5_000)
        assert len(here.sessions._untold) == 10
