"""What every place promises in which workers meet."""

import pytest

from mixllm_integrations.store.live import (
    Load,
    RestNote,
    SessionNote,
    SharedStateError,
)

pytestmark = pytest.mark.network
DOWN = RestNote("small", 0, 0.0, 0.0, 30.0, 30.0, False, False, False, False, 600.0)  # noqa: FBT003


def rest_of(heard, name="small"):
    return next((r for r in heard.rests if r.candidate == name), None)


def changed(note=DOWN, **what):
    return note._replace(**what)


UP = changed(well=True, remaining=0.0, seconds=0.0)


class TestLoad:
    def test_the_load_of_others_is_summed_and_ones_own_is_not(
        self, state, first, second, worker_of
    ):
        first.tell(load={"a": Load(2, 10.0), "b": Load(1, 1.0)})
        second.tell(load={"a": Load(3, 5.0)})
        heard = worker_of(state, "third").tell(load={"a": Load(9, 9.0)})
        assert heard.loads == {"a": Load(5, 15.0), "b": Load(1, 1.0)}
        assert first.tell(load={}).loads == {"a": Load(12, 14.0)}

    def test_what_is_told_again_takes_the_place_of_what_was(self, first, second):
        first.tell(load={"a": Load(2, 10.0)})
        first.tell(load={"a": Load(1, 4.0)})
        assert second.tell().loads == {"a": Load(1, 4.0)}

    def test_a_worker_that_says_nothing_for_two_seconds_has_no_load(
        self, first, second, clock
    ):
        first.tell(load={"a": Load(2, 10.0)})
        clock.advance(1.9)
        assert second.tell().loads
        clock.advance(0.2)
        assert second.tell().loads == {}

    def test_a_message_that_a_later_one_overtook_is_ignored(self, state, first, second):
        first.tell(load={"a": Load(1, 1.0)})
        first.number -= 1
        with pytest.raises(SharedStateError, match="overtaken"):
            first.tell(load={"a": Load(5, 5.0)})
        assert second.tell().loads == {"a": Load(1, 1.0)}

    def test_a_clock_that_is_put_back_leaves_no_dead_worker_behind(
        self, first, second, clock
    ):
        first.tell(load={"a": Load(2, 10.0)})
        clock.now -= 100.0
        assert second.tell().loads == {}
        first.tell(load={"a": Load(2, 10.0)})
        assert second.tell().loads == {"a": Load(2, 10.0)}

    @pytest.mark.parametrize("name", ['"', "a b", "'] ", "ü\n", "\ud800", "epoch", ""])
    def test_any_name_may_be_a_candidates(self, first, second, name):
        first.tell(changed(candidate=name), load={name: Load(1, 2.0)})
        heard = second.tell()
        assert heard.loads == {name: Load(1, 2.0)}
        assert rest_of(heard, name) is not None


class TestRests:
    def test_a_rest_is_heard_with_what_is_left_of_it(self, first, second, clock):
        first.tell(changed(age=0.5, since=0.5, remaining=29.5, told=True))
        clock.advance(10.0)
        rest = rest_of(second.tell())
        assert (rest.since, rest.remaining) == pytest.approx((10.5, 19.5))
        assert (rest.seconds, rest.told, rest.well, rest.reopened) == (
            *(30.0, True, False, False),
        )

    def test_who_tells_something_new_learns_its_version(self, first):
        heard = first.tell(DOWN)
        assert list(heard.versions) == [rest_of(heard).version]
        assert heard.versions[0] > 0

    def test_each_change_has_a_greater_version_even_at_one_time(self, first):
        one = first.tell(DOWN).versions[0]
        two = first.tell(changed(base=one, reopened=True)).versions[0]
        assert two > one

    def test_one_that_is_well_again_is_well_for_all(self, first, second, clock):
        first.tell(DOWN)
        clock.advance(1.0)
        heard = second.tell(changed(UP, base=rest_of(second.tell()).version))
        assert heard.versions[0] > 0
        assert rest_of(first.tell()).well

    def test_a_late_word_of_a_failure_does_not_undo_a_later_recovery(
        self, first, second, clock
    ):
        first.tell(DOWN)
        clock.advance(5.0)
        second.tell(UP)
        clock.advance(5.0)
        heard = first.tell(changed(age=8.0, since=8.0, remaining=22.0))
        assert list(heard.versions) == [0]
        assert rest_of(heard).well

    def test_a_late_word_of_a_recovery_does_not_undo_a_later_failure(
        self, first, second, clock
    ):
        first.tell(DOWN)
        heard = second.tell(changed(UP, age=3.0))
        assert list(heard.versions) == [0]
        assert not rest_of(heard).well

    @pytest.mark.parametrize("how", [{"well": True}, {"reopened": True}])
    def test_a_recovery_is_not_undone_by_news_of_a_rest_set_before_it(
        self, first, second, clock, how
    ):
        """`first` gives its probe up, and has not heard yet that all is well."""
        version = first.tell(changed(remaining=-1.0, probing=True)).versions[0]
        clock.advance(1.0)
        second.tell(changed(remaining=-1.0, **how))
        clock.advance(0.1)
        heard = first.tell(changed(since=40.0, remaining=-2.0, base=version))
        assert list(heard.versions) == [0]
        assert rest_of(heard)[-3:-1] == (how.get("reopened", False), "well" in how)

    def test_who_knew_what_it_changes_is_believed_at_once(self, first, second):
        version = first.tell(DOWN).versions[0]
        heard = second.tell(changed(UP, base=version))
        assert rest_of(heard).well

    def test_of_two_rests_that_did_not_know_of_each_other_the_longer_holds(
        self, first, second, clock
    ):
        first.tell(changed(remaining=3_000.0, told=True))
        clock.advance(1.0)
        heard = second.tell(DOWN)
        rest = rest_of(heard)
        assert list(heard.versions) == [0]
        assert (rest.remaining, rest.told) == (2_999.0, True)
        late = first.tell(changed(age=20.0, since=20.0, remaining=9_000.0 / 3))
        assert rest_of(late).remaining == 3_000.0

    def test_a_late_rest_that_is_shorter_changes_nothing(self, first, second, clock):
        version = first.tell(DOWN).versions[0]
        heard = second.tell(changed(age=20.0, since=20.0, remaining=10.0))
        assert rest_of(heard).version == version
        assert list(heard.versions) == [0]

    def test_who_knew_of_a_longer_rest_may_shorten_it(self, first, second):
        version = first.tell(changed(remaining=3_000.0, told=True)).versions[0]
        heard = second.tell(changed(base=version))
        assert rest_of(heard).remaining == 30.0
        assert heard.versions[0] > 0

    def test_the_longest_doubling_is_kept(self, first, second, clock):
        first.tell(changed(seconds=120.0, remaining=20.0))
        clock.advance(1.0)
        heard = second.tell(DOWN)
        assert (rest_of(heard).seconds, rest_of(heard).remaining) == (120.0, 30.0)

    def test_a_rest_is_forgotten_some_time_after_its_end(self, first, second, clock):
        first.tell(changed(keep=100.0))
        clock.advance(129.0)
        assert rest_of(second.tell()) is not None
        clock.advance(2.0)
        assert rest_of(second.tell()) is None

    def test_a_clock_that_is_put_back_far_leaves_no_endless_rest(self, first, clock):
        first.tell(DOWN)
        clock.now -= 90_000.0
        assert rest_of(first.tell()) is None

    def test_others_hear_of_a_probe_and_its_own_worker_does_not(self, first, second):
        first.tell(changed(remaining=-1.0, probing=True))
        assert rest_of(second.tell()).probed
        assert not rest_of(first.tell()).probed

    def test_the_probe_of_a_dead_worker_is_given_up_as_a_change(
        self, first, second, clock
    ):
        first.tell(changed(remaining=-1.0, probing=True))
        before = rest_of(second.tell())
        clock.advance(2.1)
        after = rest_of(second.tell())
        assert (before.probed, after.probed) == (True, False)
        assert after.version > before.version


class TestSessions:
    NOTE = SessionNote("s", "small", 5_000, 1.0)

    def test_a_note_is_heard_once_by_each_other_worker(self, state, first, second):
        first.tell(sessions=[self.NOTE])
        (note,) = second.tell().sessions
        assert note[:3] == ("s", "small", 5_000)
        assert not second.tell().sessions
        assert not first.tell().sessions

    def test_who_comes_later_hears_of_the_last_minutes(
        self, state, first, clock, worker_of
    ):
        first.tell(sessions=[self.NOTE])
        clock.advance(100.0)
        (note,) = worker_of(state, "third").tell().sessions
        assert note.age == pytest.approx(101.0)

    def test_long_news_come_in_parts(self, first, second):
        for _ in range(3):
            first.tell(sessions=[self.NOTE._replace(tokens=i) for i in range(500)])
        one, two = second.tell(), second.tell()
        assert [len(one.sessions), len(two.sessions)] == [1_000, 500]
        assert (one.is_all, two.is_all) == (False, True)


class TestLosingAll:
    def test_another_epoch_tells_that_all_is_lost(self, state, first, namespace, lost):
        before = first.tell(DOWN)
        assert first.tell().epoch == before.epoch
        lost(state, namespace)
        after = first.tell()
        assert after.epoch != before.epoch
        assert not after.rests
