"""A worker without the others, with their budget, and with its thread."""

import gc
import logging
import threading
import time
import weakref

import pytest

from mixllm_integrations.core.errors import BudgetExceededError, ConfigurationError
from mixllm_integrations.core.purse import LocalPurse
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving import Dispatcher
from mixllm_integrations.serving.live import Live
from mixllm_integrations.serving.pool import dispatcher_over
from mixllm_integrations.serving.shared_purse import SharedPurse
from mixllm_integrations.store.live import MemoryState


class TestLosingTheOthers:
    def test_calls_go_on_and_it_is_said_once_and_once_more_on_return(
        self, here, there, state, caplog
    ):
        state.is_away = True
        with caplog.at_level(logging.WARNING, "mixllm_integrations.serving.live"):
            for _ in range(3):
                assert not here.look()
                assert here.answered_by() == "best"
            state.is_away = False
            assert here.look()
            assert here.look()
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == 2
        assert "is away" in said[0]
        assert "nobody there" in said[0]
        assert "is back" in said[1]

    def test_what_happened_meanwhile_is_told_on_return(self, here, there, state, clock):
        here.sessions.note("s", "middle", 5_000)
        state.is_away = True
        here.fails()
        here.look()
        clock.advance(5.0)
        here.look()
        state.is_away = False
        here.tell(there)
        assert there.cooldown.due() == {"best": pytest.approx(clock() + 25.0)}
        assert set(there.sessions.head_start("s")) == {"middle"}

    def test_a_recovery_meanwhile_is_not_undone_on_return(
        self, here, there, state, clock
    ):
        """`here` was cut off; what it says of a failure is older than the recovery."""
        state.is_away = True
        here.fails()
        here.look()
        clock.advance(2.0)
        state.is_away = False
        there.cooldown.start("best")
        clock.advance(2.0)
        there.cooldown.forgive("best")
        there.look()
        here.look()
        assert not here.cooldown.due()
        there.look()
        assert not there.cooldown.due()

    def test_rests_that_were_heard_go_on_until_their_time(
        self, here, there, state, clock
    ):
        here.fails()
        here.tell(there)
        state.is_away = True
        clock.advance(20.0)
        there.look()
        assert there.answered_by() == "middle"
        clock.advance(11.0)
        assert there.answered_by() == "best"

    def test_a_server_that_lost_all_hears_all_again(self, here, worker, state, clock):
        here.fails()
        here.look()
        clock.advance(3.0)
        state.clear()
        here.look()
        assert worker().answered_by() == "middle"

    def test_whatever_goes_wrong_there_no_call_fails(self, here, state, caplog):
        def broken(told):
            raise ZeroDivisionError

        state.exchange = broken
        with caplog.at_level(logging.WARNING, "mixllm_integrations.serving.live"):
            assert not here.look()
        assert "ZeroDivisionError" in caplog.text


class TestBudget:
    def test_a_budget_becomes_that_of_all_workers(self, worker):
        one, two = worker(spending_budget=1.0), worker(spending_budget=1.0)
        assert isinstance(one.router.purse, SharedPurse)
        assert (one.router.spending_budget, one.router.spending_period_seconds) == (
            *(1.0, 86_400.0),
        )
        one.look()
        assert one.router.purse.left == pytest.approx(0.95)
        for _ in range(3):
            one.tell(two)
        assert one.router.purse.left == pytest.approx(0.475)
        assert two.router.purse.left == pytest.approx(0.475)

    def test_what_is_spent_elsewhere_is_seen_here(self, worker):
        one, two = worker(spending_budget=1.0), worker(spending_budget=1.0)
        one.look()
        one.router.purse.settle("x", 0.4)
        one.tell(two)
        one.tell(two)
        assert two.router.spending.spent == pytest.approx(0.4)
        assert one.router.spending.spent == pytest.approx(0.4)

    def test_without_a_lease_the_budget_says_what_happens(self, worker):
        one = worker(spending_budget=1.0, when_spent="stop")
        with pytest.raises(BudgetExceededError):
            one.begin("a question")
        one.look()
        assert one.answered_by() == "best"

    def test_a_purse_of_ones_own_is_left_alone(self, quiet):
        class OwnPurse(SharedPurse):
            pass

        router = Router([Candidate("best", 1.0, 2.0)], spending_budget=1.0)
        first = quiet(router)
        purse = router.purse
        other = Live(router, MemoryState())
        assert router.purse is purse
        assert other._talk.purse is None
        assert first.live._talk.purse is purse

    def test_a_later_touch_goes_on_with_the_purse_of_the_first(self, state, clock):
        router = Router([Candidate("best", 1.0, 2.0)], spending_budget=1.0)
        first = Live(router, state)
        purse = router.purse
        del first
        gc.collect()
        assert Live(router, state)._talk.purse is purse

    def test_without_a_shared_state_the_purse_stays(self):
        router = Router([Candidate("best", 1.0, 2.0)], spending_budget=1.0)
        assert Dispatcher(router).live is None
        assert isinstance(router.purse, LocalPurse)


class TestThreads:
    def router(self):
        return Router(
            [
                Candidate("best", 1.0, 2.0, prior_quality=0.9),
                Candidate("middle", 2.0, 4.0, prior_quality=0.5),
            ],
            exploration=0.0,
        )

    def test_a_sibling_acts_on_a_cooldown_within_a_second(self):
        state = MemoryState()
        one, two = (Dispatcher(self.router(), shared_state=state) for _ in range(2))
        for each in (one, two):
            each.begin("a question").abandon()
        one.cooldown.start("best")
        until = time.monotonic() + 1.0
        while not two.cooldown.due() and time.monotonic() < until:
            time.sleep(0.005)
        assert "best" in two.cooldown.due()
        for each in (one, two):
            each.live.close()

    def test_no_thread_is_there_before_the_first_call_and_one_after(self):
        before = threading.active_count()
        one = Dispatcher(self.router(), shared_state=MemoryState())
        assert threading.active_count() == before
        for _ in range(3):
            one.begin("a question").abandon()
        assert threading.active_count() == before + 1
        one.live.close()
        assert threading.active_count() == before
        assert one.begin("a question").candidate == "best"

    def test_the_thread_ends_when_nobody_uses_it(self):
        one = Dispatcher(self.router(), shared_state=MemoryState())
        one.begin("a question").abandon()
        thread, live = one.live._thread, weakref.ref(one.live)
        del one
        gc.collect()
        thread.join(2.0)
        assert not thread.is_alive()
        assert live() is None

    def test_a_call_does_not_wait_for_a_place_that_does_not_answer(self):
        hangs, gate = threading.Event(), threading.Event()

        class Slow(MemoryState):
            def exchange(self, told):
                if hangs.is_set():
                    gate.wait(10.0)
                return super().exchange(told)

        one = Dispatcher(self.router(), shared_state=Slow())
        hangs.set()
        one.begin("a question").abandon()
        started = time.monotonic()
        for _ in range(20):
            one.begin("a question").fail(RuntimeError("down"))
        assert time.monotonic() - started < 1.0
        gate.set()
        one.live.close()

    def test_the_first_call_of_a_worker_with_a_budget_has_a_lease(self):
        router = Router(
            [Candidate("best", 1.0, 2.0)], spending_budget=1.0, when_spent="stop"
        )
        one = Dispatcher(router, shared_state=MemoryState())
        assert one.begin("a question").candidate == "best"
        one.live.close()

    def test_a_worker_that_spends_fast_gets_its_next_lease_at_once(self):
        router = Router([Candidate("best", 1.0, 2.0)], spending_budget=1.0)
        one = Dispatcher(router, shared_state=MemoryState())
        one.live._poll_seconds = 60.0
        one.begin("a question").abandon()
        for _ in range(4):
            assert router.purse.reserve(str(time.monotonic()), router.purse.left * 0.9)
            spent, until = router.purse.left, time.monotonic() + 2.0
            while router.purse.left <= spent and time.monotonic() < until:
                time.sleep(0.005)
            assert router.purse.left > spent
        one.live.close()

    def test_the_same_router_and_place_are_one_worker(self):
        router, state = self.router(), MemoryState()
        one = dispatcher_over(router, shared_state=state)
        two = dispatcher_over(router, shared_state=state, cooldown_seconds=5.0)
        assert dispatcher_over(router, shared_state=state) is one
        assert two is not one
        assert two.live is one.live
        assert dispatcher_over(router) is not one

    def test_what_cannot_be_a_shared_state_is_refused_when_it_is_given(self):
        with pytest.raises(ConfigurationError, match="shared_state must be"):
            Dispatcher(self.router(), shared_state=7)
