import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.errors import ConfigurationError, StateFormatError
from mixllm_integrations.core.reliability import Reliability

QUALITIES = {"a": 0.8, "b": 0.7, "c": 0.6, "d": 0.5}
BAD_SPEAK, GOOD_SPEAK = 0.5, 0.1


def logit(q):
    return math.log(q / (1 - q))


def feedback(rng, truth, *, flipped=0.0, picky=False):
    """Draw rewards of one candidate's answers for ever, those of the silent left out.

    `picky`: who is not satisfied speaks five times as often.
    """
    while True:
        good = rng.random() < truth
        if picky and rng.random() > (GOOD_SPEAK if good else BAD_SPEAK):
            continue
        yield float(good != (rng.random() < flipped))


def satisfied(thumbs, source, predicted):
    """Return how probably a source is satisfied, by what was learned of it."""
    found = thumbs.maps()[source]
    at = found.level + found.slope * logit(min(max(predicted, 0.02), 0.98))
    return 1 / (1 + math.exp(-at))


def level(pieces):
    return float(
        np.average([e.residual for e in pieces], weights=[e.weight for e in pieces])
    )


def follow(thumbs, rng, n, *, truths, traffic, spread=0.0, **how):
    """Return each candidate's evidence and plain surprises over `n` rewards."""
    names = list(truths)
    evidence, surprises = {n: [] for n in names}, {n: [] for n in names}
    for name in rng.choice(names, size=n, p=traffic):
        shift = rng.normal(0, spread)
        q, true = (
            1 / (1 + math.exp(-logit(x) - shift))
            for x in (QUALITIES[name], truths[name])
        )
        reward = next(feedback(rng, true, **how))
        evidence[name].append(thumbs.evidence("thumbs", predicted=q, reward=reward))
        surprises[name].append(reward - q)
        thumbs.learn("thumbs", candidate=name, predicted=q, reward=reward)
    return evidence, surprises


# --- one reward ------------------------------------------------------------------


@pytest.mark.parametrize("q", [0.1, 0.3, 0.5, 0.8, 0.9])
@pytest.mark.parametrize("reward", [0, 1])
def test_an_unknown_source_is_taken_at_face_value(q, reward):
    # a = 0, b = 1: p = q, so the residual is (y - q)·q(1-q)/(q(1-q)) = y - q, and
    # its weight 0.2·q(1-q)/(q(1-q))² = 0.2/(q(1-q)): a grade's variance over its own.
    found = Reliability().evidence("thumbs", predicted=q, reward=reward)
    assert found.residual == pytest.approx(reward - q)
    assert found.weight == pytest.approx(0.2 / (q * (1 - q)))


def test_evidence_under_a_known_map_is_that_worked_out_by_hand():
    # a = -ln 4, b = 1/2 at q = 1/2: p = 1/5. For y = 1: residual
    # (4/5)·(1/4)/(1/2·4/25) = 2.5, weight 0.2·(1/4)(4/25)/(1/16) = 0.128; shrunk to
    # 1, by 0.4, the weight becomes 0.32. For y = 0 likewise: residual
    # -(1/5)·(1/4)/(2/25) = -0.625 becomes -0.25, so that 1/5·1 - 4/5·1/4 = 0.
    state = {
        "binary/thumbs": {
            "map": [-math.log(4), 0.5],
            "precision": [10.0, 0.0, 10.0],
            "count": 100,
            "candidates": {},
        }
    }
    thumbs = Reliability.from_state(state)
    up = thumbs.evidence("thumbs", predicted=0.5, reward=1)
    assert (up.residual, up.weight) == (pytest.approx(1.0), pytest.approx(0.32))
    down = thumbs.evidence("thumbs", predicted=0.5, reward=0)
    assert (down.residual, down.weight) == (
        pytest.approx(-0.25),
        pytest.approx(0.32),
    )
    assert satisfied(thumbs, "thumbs", 0.5) == pytest.approx(0.2)


def test_the_first_step_is_that_of_newton_worked_out_by_hand():
    # q = 1/2: logit 0, p = 1/2, information 1/4, surprise 1/2 on the level alone.
    # Precision 1/1.5² + 1/4 = 25/36: a = (1/2)·36/25 = 0.72; the slope stays 1.
    thumbs = Reliability()
    thumbs.learn("thumbs", candidate="a", predicted=0.5, reward=1)
    found = thumbs.maps()["thumbs"]
    assert (found.level, found.slope, found.count) == (pytest.approx(0.72), 1.0, 1)


@settings(deadline=None, max_examples=60)
@given(
    predicted=st.floats(0, 1),
    rewards=st.lists(
        st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40
    ),
)
def test_evidence_is_bounded_and_fair_after_any_history(predicted, rewards):
    thumbs = Reliability()
    for q, reward in rewards:
        thumbs.learn("thumbs", candidate="a", predicted=q, reward=reward)
    down, up = (
        thumbs.evidence("thumbs", predicted=predicted, reward=r) for r in (0, 1)
    )
    assert -1.0 <= down.residual < 0.0 < up.residual <= 1.0
    for one in (down, up):
        assert one.weight > 0.0
        assert one.weight * abs(one.residual) <= 2.0 + 1e-9
    # What is expected pulls neither way, however residuals and scores were cut.
    p = satisfied(thumbs, "thumbs", predicted)
    pull = p * up.weight * up.residual + (1 - p) * down.weight * down.residual
    assert pull == pytest.approx(0.0, abs=1e-9)


# --- what of it may move a candidate ---------------------------------------------


def test_the_share_of_a_second_thumb_is_that_worked_out_by_hand():
    # After one at q = 1/2 the level has the precision 4/9 + 1/4 = 25/36, and that
    # candidate's information is 1/4: (1 + 36/25·1/4)⁻² = (1/1.36)². At q = 0.8 the
    # slope's variance counts, too: 36/25 + 0.09·(ln 4)² for 36/25.
    thumbs = Reliability()
    assert thumbs.share("thumbs", candidate="a", predicted=0.5) == 1.0
    thumbs.learn("thumbs", candidate="a", predicted=0.5, reward=1)
    share = thumbs.share("thumbs", candidate="a", predicted=0.5)
    assert share == pytest.approx(1.36**-2)
    share = thumbs.share("thumbs", candidate="a", predicted=0.8)
    variance = 36 / 25 + 0.09 * math.log(4) ** 2
    assert share == pytest.approx((1 + variance / 4) ** -2)
    # Of somebody else, and by somebody else, nothing was said yet.
    assert thumbs.share("thumbs", candidate="b", predicted=0.5) == 1.0
    assert thumbs.share("survey", candidate="a", predicted=0.5) == 1.0


def test_the_more_a_source_has_said_of_one_the_less_more_of_it_says():
    thumbs, shares = Reliability(), []
    for i in range(400):
        shares.append(thumbs.share("thumbs", candidate="a", predicted=0.7))
        thumbs.learn("thumbs", candidate="a", predicted=0.7, reward=i % 2)
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0.25  # what depends on the query is learned all the same
    # Others speak for the map: then the same thumbs say more of that candidate.
    well = Reliability()
    for i in range(400):
        for name in "abcdefgh":
            well.learn("thumbs", candidate=name, predicted=0.7, reward=i % 2)
    told = well.share("thumbs", candidate="a", predicted=0.7)
    assert told > shares[-1]


@pytest.mark.parametrize("predicted", [math.nan, -0.1, 1.1, "0.5"])
def test_a_quality_out_of_bounds_is_refused(predicted):
    with pytest.raises(ConfigurationError, match="predicted quality"):
        Reliability().evidence("thumbs", predicted=predicted, reward=1)
    with pytest.raises(ConfigurationError, match="predicted quality"):
        Reliability().learn("thumbs", candidate="a", predicted=predicted, reward=1)
    with pytest.raises(ConfigurationError, match="predicted quality"):
        Reliability().share("thumbs", candidate="a", predicted=predicted)


@pytest.mark.parametrize("reward", [0.5, -1, 2, math.nan])
def test_a_reward_between_0_and_1_is_refused(reward):
    thumbs = Reliability()
    with pytest.raises(ConfigurationError, match="reward must be"):
        thumbs.learn("thumbs", candidate="a", predicted=0.5, reward=reward)
    assert thumbs.maps() == {}


# --- distorted sources -----------------------------------------------------------


@pytest.mark.parametrize("spread", [0.0, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("how", "naive_error"),
    [
        ({"flipped": 0.2}, -0.07),
        ({"picky": True}, -0.2),
        ({"flipped": 0.2, "picky": True}, -0.2),
    ],
)
def test_who_alone_gets_noisy_feedback_keeps_its_place(how, naive_error, seed, spread):
    # Predictions are true, so every level is 0. Taken at face value the first
    # would lose more than it is ahead of the second (0.1), or most of that.
    evidence, surprises = follow(
        Reliability(),
        np.random.default_rng(seed),
        1_000,
        truths=QUALITIES,
        traffic=[1, 0, 0, 0],
        spread=spread,
        **how,
    )
    assert np.mean(surprises["a"]) < naive_error
    assert abs(level(evidence["a"])) < 0.05


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_who_alone_is_worse_than_predicted_is_found(seed):
    evidence, _ = follow(
        Reliability(),
        np.random.default_rng(seed),
        4_000,
        truths={**QUALITIES, "b": 0.5},  # 0.7 was predicted
        traffic=[0.25] * 4,
    )
    levels = {name: level(pieces) for name, pieces in evidence.items()}
    assert levels["b"] < -0.12
    assert all(levels[name] - levels["b"] > 0.15 for name in "acd")


def test_a_favourite_that_turns_bad_is_not_excused():
    rng, thumbs = np.random.default_rng(0), Reliability()
    traffic = [0.85, 0.05, 0.05, 0.05]
    follow(thumbs, rng, 1_000, truths=QUALITIES, traffic=traffic, picky=True)
    before = thumbs.maps()["thumbs"]
    worse = {**QUALITIES, "a": 0.55}
    evidence, _ = follow(thumbs, rng, 500, truths=worse, traffic=traffic, picky=True)
    assert level(evidence["a"]) < -0.12
    assert thumbs.maps()["thumbs"].level == pytest.approx(before.level, abs=0.2)


def test_the_map_of_a_distorted_source_is_learned():
    # Speaking 5 times as often when dissatisfied divides the odds by 5: a = -ln 5.
    rng = np.random.default_rng(0)
    picky, sloppy = Reliability(), Reliability()
    spread = {"truths": QUALITIES, "traffic": [0.25] * 4, "spread": 1.0}
    follow(picky, rng, 4_000, picky=True, **spread)
    follow(sloppy, rng, 4_000, flipped=0.2, **spread)
    assert picky.maps()["thumbs"].level == pytest.approx(-math.log(5), abs=0.2)
    assert picky.maps()["thumbs"].slope == pytest.approx(1.0, abs=0.15)
    # P = 0.2 + 0.6·q: at q = 1/2 its logit rises by 0.6 for each of q's.
    assert sloppy.maps()["thumbs"].level == pytest.approx(0.0, abs=0.15)
    assert 0.4 < sloppy.maps()["thumbs"].slope < 0.65


def test_candidates_count_evenly_whatever_their_traffic():
    # One candidate is never satisfying, two always are; it has 50 times their
    # traffic. Were each reward worth the same, the level would be far below 0.
    thumbs = Reliability()
    for _ in range(40):
        for name, reward, times in (("a", 0, 50), ("b", 1, 1), ("c", 1, 1)):
            for _ in range(times):
                thumbs.learn("thumbs", candidate=name, predicted=0.5, reward=reward)
    even = Reliability()
    for _ in range(40):
        for name, reward in (("a", 0), ("b", 1), ("c", 1)):
            even.learn("thumbs", candidate=name, predicted=0.5, reward=reward)
    busy, fair = thumbs.maps()["thumbs"].level, even.maps()["thumbs"].level
    assert fair > 0.2
    assert busy > -1.0
    lone = Reliability()
    for _ in range(2_000):
        lone.learn("thumbs", candidate="a", predicted=0.5, reward=0)
    assert lone.maps()["thumbs"].level < busy - 1.0


def test_sources_are_learned_apart_and_the_unnamed_share_one():
    thumbs = Reliability()
    for _ in range(50):
        thumbs.learn("thumbs", candidate="a", predicted=0.7, reward=0)
        thumbs.learn(None, candidate="a", predicted=0.7, reward=1)
    maps = thumbs.maps()
    assert maps["thumbs"].level < -1.0
    assert maps["unnamed"].level > 0.5
    # Nobody has heard of a survey: it is taken at face value, 1 - 0.7.
    assert thumbs.evidence("survey", predicted=0.7, reward=1).residual == (
        pytest.approx(0.3)
    )


def test_no_more_than_256_sources_have_a_map_of_their_own():
    users = Reliability()
    for i in range(400):
        users.learn(f"user {i}", candidate="a", predicted=0.6, reward=0)
    assert len(users.maps()) == 257
    assert users.maps()["others"].count == 400 - 256
    late, others = (
        users.evidence(source, predicted=0.6, reward=1)
        for source in ("user 399", "others")
    )
    assert late == others
    assert satisfied(users, "others", 0.6) < 0.3


# --- names and state -------------------------------------------------------------


def taught(n=300):
    thumbs = Reliability()
    follow(
        thumbs,
        np.random.default_rng(5),
        n,
        truths=QUALITIES,
        traffic=[0.4, 0.3, 0.2, 0.1],
        spread=1.0,
        picky=True,
    )
    return thumbs


def test_a_restored_state_says_and_learns_the_same():
    thumbs = taught()
    again = Reliability.from_state(json.loads(json.dumps(thumbs.state())))
    assert again.bad == {}
    for one in (thumbs, again):
        follow(one, np.random.default_rng(6), 50, truths=QUALITIES, traffic=[0.25] * 4)
    assert again.state() == thumbs.state()


def test_a_renamed_candidate_keeps_its_share():
    thumbs = taught()
    rows = thumbs.state()["binary/thumbs"]["candidates"]
    thumbs.rename("a", "new")
    thumbs.rename("nobody", "b")
    thumbs.discard("c")
    thumbs.discard("nobody")
    left = thumbs.state()["binary/thumbs"]["candidates"]
    assert left == {"new": rows["a"], "b": rows["b"], "d": rows["d"]}


@pytest.mark.parametrize(
    "damage",
    [
        {"map": [0.0]},
        {"map": [math.nan, 1.0]},
        {"map": [0.0, -1.0]},
        {"precision": [1.0, 5.0, 1.0]},
        {"precision": [1.0, math.nan, 1.0]},
        {"precision": "no"},
        {"count": -1},
        {"candidates": None},
    ],
)
def test_a_damaged_source_is_dropped_and_the_others_stay(damage):
    state = taught().state()
    state["binary/survey"] = state["binary/thumbs"] | damage
    again = Reliability.from_state(state)
    assert list(again.bad) == ["survey"]
    assert list(again.maps()) == ["thumbs"]


@pytest.mark.parametrize("row", [None, [], [1.0], [math.nan, 0.0], [-1.0, 0.0], [1, 9]])
def test_a_damaged_candidate_is_dropped_from_its_source_alone(row):
    state = taught().state()
    state["binary/thumbs"]["candidates"]["b"] = row
    again = Reliability.from_state(state)
    assert "'b'" in again.bad["thumbs"]
    assert again.maps() == taught().maps()
    assert set(again.state()["binary/thumbs"]["candidates"]) == {"a", "c", "d"}


def test_a_state_that_is_no_table_is_told():
    with pytest.raises(StateFormatError, match="not a list"):
        Reliability.from_state([])
