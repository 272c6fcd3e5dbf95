"""Logged decisions are made again by others, and weighed against what happened."""

import numpy as np
import pytest

from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError
from mixllm_integrations.core.policy import Choice
from mixllm_integrations.report.traffic import read_traffic
from mixllm_integrations.report.what_if import Target, what_if


def evaluated(book, **settings):
    return what_if(read_traffic(book), [Target(**settings)])[0]


@pytest.fixture
def even(book):
    """Both answered as often; the small one well once, the large one always."""
    answers = {"a": ("small", 1.0), "b": ("small", 0.0)}
    answers |= {"c": ("large", 1.0), "d": ("large", 1.0)}
    for name, (candidate, reward) in answers.items():
        book.decide(name, candidate)
        book.answer(name, cost={"small": 0.002, "large": 0.006}[candidate])
        book.judge(name, reward)
    return book


def test_always_one_candidate_by_hand(even):
    found = evaluated(even, always="large")
    # Weights 2 for c and d: reward (2 + 2) / 4, cost (2 + 2) * 0.006 / 4.
    assert found.evaluation.ips.reward.value == pytest.approx(1.0)
    assert found.evaluation.ips.cost.value == pytest.approx(0.006)
    # Doubly robust: 0.8 + 4 * 0.2 / 4, 0.005 + 4 * 0.001 / 4.
    assert found.evaluation.best.reward.value == pytest.approx(1.0)
    assert found.evaluation.best.cost.value == pytest.approx(0.006)
    assert found.evaluation.logged.reward.value == pytest.approx(0.75)
    assert found.evaluation.logged.cost.value == pytest.approx(0.004)
    assert found.shares == {"small": 0.0, "large": 1.0}
    # At the log's λ of 0.01: 1 - 0.6, and 0.75 - 0.4.
    assert found.willingness_to_pay == 0.01
    assert found.evaluation.best.net_gain.value == pytest.approx(0.05)


@pytest.mark.parametrize(("worth", "who"), [(0.005, "small"), (0.05, "large")])
def test_another_willingness_to_pay_chooses_by_the_logged_scores(even, worth, who):
    # 0.5 - 0.001/λ against 0.8 - 0.005/λ: they meet at λ = 0.01333.
    found = evaluated(even, willingness_to_pay=worth)
    assert found.shares[who] == 1.0
    assert found.willingness_to_pay == worth
    assert found.evaluation.elsewhere == 0.5


def test_without_settings_those_of_each_decision_hold(book):
    book.decide("a", "small", willingness_to_pay=0.01)
    book.decide("b", "large", willingness_to_pay=0.05)
    book.decide("c", "large", willingness_to_pay=None)  # infinite: JSON has no word
    found = evaluated(book)
    assert found.evaluation.elsewhere == 0.0
    assert found.willingness_to_pay == 0.05


def test_exploration_and_waiting_weigh_as_asked_or_as_logged(book):
    # The width of the large one is 0.1 more; the gap at λ = 0.01 is 0.1.
    waits = dict(book_scores(), waiting_penalty=[0.0, 1.0])
    book.decide("a", scores=waits)
    assert evaluated(book).shares["large"] == 0.0
    assert evaluated(book, exploration=2.0).shares["large"] == 1.0
    assert evaluated(book, exploration=2.0, waiting_weight=0.5).shares["large"] == 0.0
    book.events_written.clear()
    book.decide("a", exploration=2.0)
    assert evaluated(book).shares["large"] == 1.0


def book_scores():
    return {
        "candidates": ["small", "large"],
        "quality": [0.5, 0.8],
        "cost": [0.001, 0.005],
        "uncertainty": [0.1, 0.2],
        "waiting_penalty": [0.0, 0.0],
    }


class Dearest:
    """A policy of one's own."""

    def __init__(self):
        self.boards = []

    def choose(self, board, *, rng=None):
        self.boards.append(board)
        cost = np.where(board.eligible, board.cost, -1.0)
        return Choice(int(cost.argmax()), board.quality, int(cost.argmax()))


def test_any_policy_may_be_tried(even):
    policy = Dearest()
    found = evaluated(even, policy=policy)
    assert found.shares["large"] == 1.0
    assert str(found.target) == "Dearest"
    assert len(policy.boards) == 4
    assert policy.boards[0].uncertainty.tolist() == [0.1, 0.2]


class Coin:
    """Leaves everything to chance."""

    def choose(self, board, *, rng=None):
        index = int(rng.integers(len(board.quality)))
        return Choice(index, board.quality, 0, 1 / len(board.quality))


def test_chance_comes_from_the_seed(even):
    traffic = read_traffic(even)
    first, again = (what_if(traffic, [Target(policy=Coin())])[0] for _ in range(2))
    assert first.shares == again.shares
    others = [
        what_if(traffic, [Target(policy=Coin())], seed=s)[0].shares for s in range(9)
    ]
    assert len({tuple(shares.items()) for shares in others}) > 1


def test_who_was_not_eligible_is_not_chosen(book):
    book.decide("a", "small", excluded={"large": "barred"}, propensity=1.0)
    book.decide("b", "small")
    found = evaluated(book, always="large")
    assert found.shares == {"small": 0.5, "large": 0.5}
    assert found.unavailable == 1
    assert found.evaluation.n_unsupported == 0
    assert evaluated(book, willingness_to_pay=9.0).shares["large"] == 0.5


def test_what_cannot_be_replayed_is_left_out_and_counted(even):
    even.decide("old", scores=...)
    even.answer(even.decide("failed"), error="TimeoutError")
    even.answer(even.decide("cached"), error="cached")
    found = evaluated(even, always="small")
    assert found.evaluation.n_decisions == 4
    assert found.left_out == {
        "failed": 1,
        "answered from a cache": 1,
        "logged without scores": 1,
    }


def test_a_log_that_cannot_be_replayed_at_all_says_why(book):
    book.decide("old", scores=...)
    with pytest.raises(ConfigurationError, match="1 logged without scores"):
        evaluated(book, always="small")


def test_an_unknown_candidate_is_told_with_those_that_are_known(even):
    with pytest.raises(UnknownCandidateError, match="'small', 'large'"):
        evaluated(even, always="medium")


def test_where_nothing_was_random_the_model_alone_speaks(book):
    for name in ("a", "b"):
        book.judge(book.decide(name, propensity=1.0), 1.0)
    found = evaluated(book, always="large").evaluation
    assert found.doubly_robust is None
    assert found.best.reward.value == pytest.approx(0.8)
    assert "no decision was randomised" in found.warnings[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"willingness_to_pay": 0.0},
        {"willingness_to_pay": float("nan")},
        {"exploration": -1.0},
        {"waiting_weight": float("inf")},
        {"always": "large", "policy": Dearest()},
    ],
)
def test_a_target_that_cannot_be_used_is_refused(settings):
    with pytest.raises(ConfigurationError):
        Target(**settings)


def test_a_target_says_what_it_is():
    assert str(Target(willingness_to_pay=0.005)) == "λ = 0.005"
    assert str(Target(always="large")) == "always large"
    assert str(Target(exploration=0.1, waiting_weight=0)) == (
        "exploration = 0.1, waiting weight = 0"
    )
    assert str(Target()) == "the same settings"
