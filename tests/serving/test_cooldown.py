"""Who is left alone after a failure, for how long, and who asks again first."""

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.serving.cooldown import Cooldown
from mixllm_integrations.testing import ManualClock


@pytest.fixture
def cooldown(clock):
    return Cooldown(30.0, clock=clock)


def rest_of(cooldown, clock, name="a"):
    return cooldown.due()[name] - clock()


def fail_again(cooldown, clock, **how):
    """Let the rest pass, probe, and fail."""
    clock.advance(max(rest_of(cooldown, clock), 0.0))
    assert cooldown.claim("a", by="probe")
    cooldown.start("a", began_at=clock(), by="probe", **how)


class TestRests:
    def test_nobody_rests_at_first(self, cooldown):
        assert not cooldown.due()
        assert cooldown.claim("a", by="call")

    def test_a_candidate_that_failed_rests_and_no_other(self, cooldown, clock):
        cooldown.start("a")
        assert dict(cooldown.due()) == {"a": 30.0}
        assert not cooldown.claim("a", by="call")
        assert cooldown.claim("b", by="call")
        clock.advance(29.9)
        assert "a" in cooldown.due()
        clock.advance(0.1)
        assert not cooldown.due()

    def test_each_further_failure_doubles_the_rest_up_to_the_bound(
        self, cooldown, clock
    ):
        cooldown.start("a")
        rests = [rest_of(cooldown, clock)]
        for _ in range(6):
            fail_again(cooldown, clock)
            rests.append(rest_of(cooldown, clock))
        assert rests == [30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0]

    @pytest.mark.parametrize(
        ("seconds", "longest"), [(1.0, 20.0), (30.0, 600.0), (900.0, 900.0)]
    )
    def test_the_bound_is_twenty_rests_or_ten_minutes(self, clock, seconds, longest):
        assert Cooldown(seconds, clock=clock).longest_seconds == longest

    def test_the_bound_can_be_chosen_but_not_below_the_first_rest(self, clock):
        cooldown = Cooldown(30.0, clock=clock, longest_seconds=40.0)
        cooldown.start("a")
        fail_again(cooldown, clock)
        assert rest_of(cooldown, clock) == 40.0
        with pytest.raises(ConfigurationError, match=r"at least .* 30 s, not 20\.0"):
            Cooldown(30.0, clock=clock, longest_seconds=20.0)

    def test_an_answer_opens_the_candidate_and_forgets_its_failures(
        self, cooldown, clock
    ):
        cooldown.start("a")
        fail_again(cooldown, clock)
        cooldown.forgive("a")
        assert not cooldown.due()
        cooldown.start("a")
        assert rest_of(cooldown, clock) == 30.0

    def test_failures_of_long_ago_are_forgotten(self, cooldown, clock):
        cooldown.start("a")
        clock.advance(30.0 + 600.0)
        assert not cooldown.due()
        assert not cooldown._rests
        cooldown.start("a")
        assert rest_of(cooldown, clock) == 30.0

    def test_no_seconds_turn_everything_off(self, clock):
        cooldown = Cooldown(0.0, clock=clock)
        cooldown.start("a")
        cooldown.start("a", retry_after_seconds=60.0)
        assert not cooldown.due()
        assert cooldown.claim("a", by="call")

    def test_while_nobody_rests_no_lock_is_taken(self, cooldown):
        cooldown._lock = None
        assert not cooldown.due()
        assert cooldown.claim("a", by="call")
        cooldown.abandon("a", by="call")
        cooldown.reopen("a", by="call")
        cooldown.forgive("a")


class TestFailuresTogether:
    def test_calls_under_way_together_fail_once(self, cooldown, clock):
        clock.advance(10.0)
        for _ in range(20):
            cooldown.start("a", began_at=5.0)
            clock.advance(0.1)
        fail_again(cooldown, clock)
        assert rest_of(cooldown, clock) == 60.0

    def test_a_call_from_before_the_rest_does_not_lengthen_it(self, cooldown, clock):
        clock.advance(10.0)
        cooldown.start("a", began_at=5.0)
        clock.advance(20.0)
        cooldown.start("a", began_at=6.0)
        assert rest_of(cooldown, clock) == 10.0

    def test_a_late_failure_from_before_the_rest_leaves_the_probe_alone(
        self, cooldown, clock
    ):
        clock.advance(10.0)
        cooldown.start("a", began_at=5.0)
        clock.advance(30.0)
        assert cooldown.claim("a", by="probe")
        cooldown.start("a", began_at=6.0)
        assert not cooldown.claim("a", by="other")
        cooldown.abandon("a", by="probe")
        assert not cooldown.due()

    def test_a_failure_during_the_rest_renews_it_without_doubling(
        self, cooldown, clock
    ):
        cooldown.start("a")
        for _ in range(9):  # nobody else was left, so it was asked all the same
            clock.advance(10.0)
            cooldown.start("a", began_at=clock())
        assert rest_of(cooldown, clock) == 30.0


class TestRetryAfter:
    def test_it_is_obeyed_to_the_second(self, cooldown, clock):
        cooldown.start("a", retry_after_seconds=7.5)
        assert rest_of(cooldown, clock) == 7.5
        cooldown.start("b", retry_after_seconds=2_000.0)
        assert rest_of(cooldown, clock, "b") == 2_000.0

    def test_more_than_an_hour_is_an_hour(self, cooldown, clock):
        cooldown.start("a", retry_after_seconds=86_400.0)
        assert rest_of(cooldown, clock) == 3_600.0

    def test_it_does_not_cut_a_longer_rest_short(self, cooldown, clock):
        cooldown.start("a")
        cooldown.start("a", retry_after_seconds=1.0)
        assert rest_of(cooldown, clock) == 30.0

    def test_a_later_failure_does_not_cut_it_short(self, cooldown, clock):
        cooldown.start("a", retry_after_seconds=100.0)
        clock.advance(1.0)
        cooldown.start("a", began_at=clock())
        assert rest_of(cooldown, clock) == 99.0

    def test_it_counts_for_no_failure_in_a_row(self, cooldown, clock):
        cooldown.start("a", retry_after_seconds=5.0)
        for _ in range(3):
            fail_again(cooldown, clock, retry_after_seconds=5.0)
            assert rest_of(cooldown, clock) == 5.0
        fail_again(cooldown, clock)
        assert rest_of(cooldown, clock) == 30.0

    def test_a_call_from_before_it_does_not_end_it(self, cooldown, clock):
        clock.advance(10.0)
        cooldown.start("a", retry_after_seconds=60.0, began_at=1.0)
        cooldown.forgive("a", began_at=2.0)
        assert rest_of(cooldown, clock) == 60.0
        cooldown.forgive("a", began_at=11.0)
        assert not cooldown.due()

    def test_any_answer_ends_a_rest_that_nobody_ordered(self, cooldown, clock):
        clock.advance(10.0)
        cooldown.start("a", began_at=1.0)
        cooldown.forgive("a", began_at=2.0)
        assert not cooldown.due()

    def test_it_may_say_at_once(self, cooldown):
        cooldown.start("a", retry_after_seconds=0.0)
        assert not cooldown.due()
        assert cooldown.claim("a", by="probe")
        assert not cooldown.claim("a", by="other")


class TestProbe:
    @pytest.fixture
    def half_open(self, cooldown, clock):
        cooldown.start("a")
        clock.advance(30.0)
        return cooldown

    def test_only_one_call_may_probe_and_the_others_see_it_cooling(self, half_open):
        assert half_open.claim("a", by="probe")
        assert half_open.claim("a", by="probe")
        assert not half_open.claim("a", by="other")
        assert dict(half_open.due()) == {"a": 30.0}

    def test_its_success_opens_the_candidate(self, half_open, clock):
        assert half_open.claim("a", by="probe")
        half_open.forgive("a", began_at=clock(), by="probe")
        assert not half_open.due()
        assert half_open.claim("a", by="other")
        assert half_open.claim("a", by="third")

    def test_its_failure_doubles_the_rest(self, half_open, clock):
        assert half_open.claim("a", by="probe")
        half_open.start("a", began_at=clock(), by="probe")
        assert rest_of(half_open, clock) == 60.0

    def test_abandoning_it_frees_the_place(self, half_open):
        assert half_open.claim("a", by="probe")
        half_open.abandon("a", by="probe")
        assert not half_open.due()
        assert half_open.claim("a", by="other")

    def test_another_call_cannot_abandon_it(self, half_open):
        assert half_open.claim("a", by="probe")
        half_open.abandon("a", by="other")
        assert not half_open.claim("a", by="other")

    def test_one_that_never_ends_frees_the_place_after_a_while(self, half_open, clock):
        assert half_open.claim("a", by="probe")
        clock.advance(59.9)
        assert not half_open.claim("a", by="other")
        clock.advance(0.2)
        assert half_open.claim("a", by="other")
        half_open.abandon("a", by="probe")  # late: the place is another's now
        assert not half_open.claim("a", by="third")

    def test_another_calls_failure_does_not_let_a_second_one_in(self, half_open, clock):
        assert half_open.claim("a", by="probe")
        half_open.start("a", retry_after_seconds=1.0, by="other")
        clock.advance(1.0)
        assert not half_open.claim("a", by="third")
        half_open.start("a", began_at=0.0, by="probe")
        assert half_open.claim("a", by="third")

    def test_its_answer_frees_the_place_even_if_the_provider_ordered_a_rest_meanwhile(
        self, half_open, clock
    ):
        assert half_open.claim("a", by="probe")
        began_at = clock()
        clock.advance(0.5)
        half_open.start("a", retry_after_seconds=1.0, by="other")
        half_open.forgive("a", began_at=began_at, by="probe")
        clock.advance(1.0)
        assert half_open.claim("a", by="third")

    def test_abandoning_a_candidate_that_is_well_does_nothing(self, half_open):
        half_open.abandon("b", by="call")
        assert half_open.claim("b", by="call")


class TestFirstWord:
    def begin_and_break(self, cooldown, clock):
        """Let the rest pass, hear a first word, and no second one."""
        clock.advance(max(rest_of(cooldown, clock), 0.0))
        assert cooldown.claim("a", by="probe")
        began_at = clock()
        clock.advance(1.0)
        cooldown.reopen("a", by="probe", began_at=began_at)
        clock.advance(1.0)
        cooldown.start("a", began_at=began_at, by="probe")

    def test_one_that_always_breaks_after_it_rests_twice_as_long_each_time(
        self, cooldown, clock
    ):
        cooldown.reopen("a", by="first")
        cooldown.start("a", by="first")
        rests = [rest_of(cooldown, clock)]
        for _ in range(3):
            self.begin_and_break(cooldown, clock)
            rests.append(rest_of(cooldown, clock))
        assert rests == [30.0, 60.0, 120.0, 240.0]

    def test_after_it_everybody_may_ask_at_once(self, cooldown, clock):
        cooldown.start("a")
        clock.advance(30.0)
        assert cooldown.claim("a", by="probe")
        assert not cooldown.claim("a", by="other")
        cooldown.reopen("a", by="probe", began_at=clock())
        assert not cooldown.due()
        assert cooldown.claim("a", by="other")
        assert cooldown.claim("a", by="third")
        assert not cooldown.due()

    def test_it_ends_a_rest_that_another_call_began(self, cooldown, clock):
        cooldown.start("a", by="other")
        cooldown.reopen("a", by="call", began_at=clock() - 1.0)
        assert not cooldown.due()
        assert cooldown.claim("a", by="third")

    def test_it_ends_no_rest_that_the_provider_ordered_meanwhile(self, cooldown, clock):
        clock.advance(10.0)
        cooldown.start("a", retry_after_seconds=60.0, began_at=1.0)
        cooldown.reopen("a", by="call", began_at=2.0)
        assert rest_of(cooldown, clock) == 60.0
        cooldown.reopen("a", by="call", began_at=11.0)
        assert not cooldown.due()

    def test_a_whole_answer_forgets_the_failures(self, cooldown, clock):
        cooldown.start("a")
        self.begin_and_break(cooldown, clock)
        clock.advance(60.0)
        assert cooldown.claim("a", by="probe")
        cooldown.reopen("a", by="probe", began_at=clock())
        cooldown.forgive("a", by="probe", began_at=clock())
        cooldown.start("a")
        assert rest_of(cooldown, clock) == 30.0

    def test_an_answer_that_nobody_heard_to_the_end_leaves_it_open(
        self, cooldown, clock
    ):
        cooldown.start("a")
        clock.advance(30.0)
        assert cooldown.claim("a", by="probe")
        cooldown.reopen("a", by="probe", began_at=clock())
        cooldown.abandon("a", by="probe")
        assert not cooldown.due()
        cooldown.start("a")
        assert rest_of(cooldown, clock) == 60.0

    def test_calls_under_way_together_that_break_after_it_fail_once(
        self, cooldown, clock
    ):
        clock.advance(10.0)
        for call in "uvwx":
            cooldown.reopen("a", by=call, began_at=5.0)
            clock.advance(0.1)
            cooldown.start("a", by=call, began_at=5.0)
            assert rest_of(cooldown, clock) == pytest.approx(30.0)

    def test_breaks_during_a_rest_do_not_double_it(self, cooldown, clock):
        cooldown.start("a")
        for call in "uvwx":  # nobody else was left, so it was asked all the same
            began_at = clock()
            clock.advance(1.0)
            cooldown.reopen("a", by=call, began_at=began_at)
            clock.advance(1.0)
            cooldown.start("a", by=call, began_at=began_at)
            assert rest_of(cooldown, clock) == 30.0

    def test_a_rest_that_it_ended_does_not_come_back(self, cooldown, clock):
        cooldown.start("a", retry_after_seconds=2_000.0)
        cooldown.reopen("a", by="call", began_at=clock())
        clock.advance(1.0)
        cooldown.start("a", by="call", began_at=clock())
        assert rest_of(cooldown, clock) == 30.0

    @pytest.mark.parametrize("by", ["probe", "insisting"])
    def test_after_it_no_call_is_the_probe(self, cooldown, clock, by):
        cooldown.start("a", retry_after_seconds=1.0)
        clock.advance(1.0)
        assert cooldown.claim("a", by="probe")
        cooldown.reopen("a", by=by, began_at=clock())
        assert cooldown.claim("a", by="other")
        cooldown.start("a", retry_after_seconds=1.0, by="third")
        clock.advance(1.0)
        assert cooldown.claim("a", by="fourth")

    def test_failures_before_it_are_remembered_as_long_as_if_it_had_failed(
        self, cooldown, clock
    ):
        cooldown.start("a")
        clock.advance(500.0)
        began_at = clock()
        assert cooldown.claim("a", by="probe")
        cooldown.reopen("a", by="probe", began_at=began_at)
        clock.advance(400.0)
        assert not cooldown.due()
        cooldown.start("a", by="probe", began_at=began_at)
        assert rest_of(cooldown, clock) == 60.0

    def test_failures_of_long_ago_are_forgotten_after_it_too(self, cooldown, clock):
        cooldown.start("a")
        clock.advance(30.0)
        cooldown.reopen("a", by="call", began_at=clock())
        clock.advance(599.0)
        assert not cooldown.due()
        assert cooldown._rests
        clock.advance(1.0)
        assert not cooldown.due()
        assert not cooldown._rests


class Calls(RuleBasedStateMachine):
    """Calls that claim, fail, answer and are abandoned in any order."""

    names = st.sampled_from("ab")

    def __init__(self):
        super().__init__()
        self.clock = ManualClock()
        self.cooldown = Cooldown(10.0, clock=self.clock)
        self.made = 0
        self.under_way = {}  # call: (candidate, when it began, the rest that it probes)

    @rule(name=names)
    def begin(self, name):
        self.made += 1
        call = f"call {self.made}"
        cooling = name in self.cooldown.due()
        rest = self.cooldown._rests.get(name)
        half_open = None if cooling or rest is None or rest.reopened else rest
        allowed = self.cooldown.claim(name, by=call)
        assert allowed != cooling
        if allowed:
            self.under_way[call] = (name, self.clock(), half_open)

    @rule(name=names)
    def insist(self, name):
        """Begin a call whatever the cooldown says: nobody else was left."""
        self.made += 1
        self.under_way[f"call {self.made}"] = (name, self.clock(), None)

    def end(self, data):
        if not self.under_way:
            return None
        call = data.draw(st.sampled_from(sorted(self.under_way)))
        return call, *self.under_way.pop(call)[:2]

    @rule(data=st.data(), told=st.none() | st.floats(0.0, 10_000.0))
    def fail(self, data, told):
        if ended := self.end(data):
            call, name, began_at = ended
            self.cooldown.start(
                name, retry_after_seconds=told, began_at=began_at, by=call
            )
            if told is not None:
                known = self.cooldown.due().get(name, self.clock())
                assert known >= self.clock() + min(told, 3_600.0)

    @rule(data=st.data())
    def answer(self, data):
        if ended := self.end(data):
            call, name, began_at = ended
            rest = self.cooldown._rests.get(name)
            ordered = rest is not None and rest.told and began_at < rest.since
            self.cooldown.forgive(name, began_at=began_at, by=call)
            assert ordered or name not in self.cooldown.due()

    @rule(data=st.data())
    def first_word(self, data):
        if not self.under_way:
            return
        call = data.draw(st.sampled_from(sorted(self.under_way)))
        name, began_at, _ = self.under_way[call]
        rest = self.cooldown._rests.get(name)
        ordered = rest is not None and rest.told and began_at < rest.since
        self.cooldown.reopen(name, by=call, began_at=began_at)
        assert ordered or name not in self.cooldown.due()
        for other, (asked, began_at, _) in self.under_way.items():
            if other == call or (asked == name and not ordered):
                self.under_way[other] = (asked, began_at, None)

    @rule(data=st.data())
    def abandon(self, data):
        if ended := self.end(data):
            call, name, _ = ended
            self.cooldown.abandon(name, by=call)

    @rule(seconds=st.floats(0.0, 300.0))
    def wait(self, seconds):
        self.clock.advance(seconds)

    @invariant()
    def no_rest_exceeds_its_bound(self):
        for name, until in self.cooldown.due().items():
            bound = 3_600.0 if self.cooldown._rests[name].told else 200.0
            assert until - self.clock() <= bound + 1e-6

    @invariant()
    def one_call_probes_at_most(self):
        for name in "ab":
            rest = self.cooldown._rests.get(name)
            probing = [
                call
                for call, (_, began_at, probed) in self.under_way.items()
                if rest is not None
                and probed is rest
                and self.clock() < began_at + 60.0
            ]
            assert len(probing) <= 1


Calls.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestAnyOrder = Calls.TestCase


class TestThreads:
    def test_of_many_threads_one_probes(self, cooldown, clock):
        for turn in range(200):
            cooldown.start("a")
            clock.advance(rest_of(cooldown, clock))
            barrier = threading.Barrier(4)

            def claim(call, barrier=barrier):
                barrier.wait()
                return cooldown.claim("a", by=call)

            calls = [f"{turn}-{n}" for n in range(4)]
            with ThreadPoolExecutor(4) as pool:
                assert sum(pool.map(claim, calls)) == 1
            cooldown.forgive("a")

    def test_a_finalizer_may_abandon_while_the_lock_is_held(self, cooldown, clock):
        cooldown.start("a")
        clock.advance(30.0)
        assert cooldown.claim("a", by="probe")

        class Stream:
            pass

        stream = Stream()
        weakref.finalize(stream, cooldown.abandon, "a", by="probe")
        with cooldown._lock:
            del stream
            gc.collect()
        assert not cooldown.due()
