"""What is damaged of a saved router is dropped by name; all else goes on as it was."""

import json
import re
import warnings

import numpy as np
import pytest

from mixllm_integrations.core.errors import StateFormatError, UnknownDecisionError
from mixllm_integrations.core.predictors.heads import prior_quality
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, Outcome

FILES = STATE, ARRAYS, MANIFEST = "state.json", "arrays.safetensors", "manifest.json"
QUERIES = ["", "Explain contract about court for tenant?", "integral of prime", "東京"]
COLUMNS = ("quality", "output_tokens", "cost", "uncertainty")
FITTED, LATE = ("calculator", "lawyer", "all-round"), ("newcomer", "latest")
NAMES = (*FITTED, *LATE)
HEAD = [
    *("quality.0.coefficients", "quality.0.intercepts", "length.0.coefficients"),
    *("length.0.intercepts", "heads.smearing", "heads.mean_quality", "heads.level"),
    *("heads.mean_output_tokens", "heads.n_labels", "heads.shift", "heads.leans"),
    *("heads.trust", "costs.input_factor", "costs.cost_factor", "costs.fixed_cost"),
]
ARM = [
    f"online.{room}.{name}"
    for room in ("designs", "residuals")
    for name in ("arm_of", "base_of", "share", "moment", "tail/", "weights/")
]
SCORES = ["online.feedback.outer", "online.feedback.told"]
# Of each: where it is, what is said of it, and what there is instead.
OWN = [
    ("lengths.lawyer", "lengths of candidate 'lawyer'", "it is learned anew"),
    ("costs.lawyer", "bills of candidate 'lawyer'", "it is learned anew"),
    ("labels.lawyer", "labels of candidate 'lawyer'", "60 is taken"),
    ("labels.newcomer", "labels of candidate 'newcomer'", "0 is taken"),
    ("bases.lawyer", "base of candidate 'lawyer'", "its head needs none"),
    ("drift.candidates.lawyer", "of candidate 'lawyer'", "it is watched anew"),
    ("signals.candidates.lawyer", "of candidate 'lawyer'", "they are counted anew"),
    ("trials.latest", "trial of candidate 'latest'", "there is no trial"),
    ("looks.lawyer", "fall of candidate 'lawyer'", "there is no second look"),
]
REPLAY = "the replay of labels", "`refit` does nothing until `fit` was called"
SHARED = [
    ("exploration", "what exploring has cost", "a new period begins"),
    ("drifts", "the list of past alarms", "it begins anew"),
    ("unlearned", "new since the last refit", "all of it counts as new"),
    ("chance", "the state of chance", "it is drawn anew"),
    ("experience.drift.sensitivity", "learned of changes", "watched anew"),
    ("experience.drift.ignored", "learned of changes", "watched anew"),
    ("experience.signals.wanted", "all signals", "they are counted anew"),
    ("experience.signals.gram", "what signals say", "they are counted anew"),
    ("experience.reliability.binary/thumbs", "source 'thumbs'", "learned anew"),
    ("experience.replay", *REPLAY),
    *((f"online.replay.{n}", *REPLAY) for n in ("who", "contexts", "labels")),
]
NEEDED = [
    *(f"knowledge.{n}" for n in ("n_pieces", "domains", "sharpness", "version")),
    *("knowledge.names", "knowledge.revision", "prior", "candidates", "encoder"),
    *("settings", "policy", "waiting_tolerance_seconds", "max_cost_per_query"),
    *(f"context.{n}" for n in ("centre", "axes", "trait_scale", "seen", "seen_scores")),
    *(f"scorer.{n}" for n in ("column_of", "idf", "offset", "weights")),
    *("form.mean", "form.scale", "shape.mean", "shape.scale", "shape.columns"),
    *("shape.chosen", "domains.base_rate"),
]


class Saved:
    """A saved router, bit by bit: what is where, and what it predicts undamaged."""

    def __init__(self, router, folder, encoder):
        self.folder, self.given = folder, {"encoder": encoder, "clock": noon}
        router.save(folder)
        self.files = {name: (folder / name).read_bytes() for name in FILES}
        self.state = json.loads(self.files[STATE])
        parts = json.loads(self.files[MANIFEST])["parts"][STATE]
        self.places = {
            ".".join(map(str, place)): (start, stop) for place, start, stop, _ in parts
        }
        self.start = 8 + int.from_bytes(self.files[ARRAYS][:8], "little")
        self.arrays = json.loads(self.files[ARRAYS][8 : self.start])
        self.before = self.load().predict(QUERIES)

    def load(self, *flips):
        """Load it with some bits flipped: of each its file, byte and bit."""
        files = {name: bytearray(data) for name, data in self.files.items()}
        for name, byte, bit in flips:
            files[name][byte] ^= 1 << bit
        for name, data in files.items():
            (self.folder / name).write_bytes(data)
        return Router.load(self.folder, **self.given)

    def load_damaged(self, *flips):
        """Return the router, and all warnings but that a file was changed."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loaded = self.load(*flips)
        assert {w.category for w in caught} == {RuntimeWarning}
        texts = [str(w.message) for w in caught]
        of_files = [t for t in texts if str(self.folder) in t]
        assert len(of_files) == len({name for name, _, _ in flips})
        assert all("left out; restore it from a copy, or save" in t for t in of_files)
        return loaded, [t for t in texts if t not in of_files]

    def bit(self, name, *index):
        """Return a bit of a part, or of a number of an array: both stay readable."""
        if name in self.places:
            start, stop = self.places[name]
            return STATE, (start + stop) // 2, 0
        return ARRAYS, self.start + self._offset(name, *index), 1

    def arm_bit(self, name, who):
        """Return a bit of what an array of arms has of a candidate."""
        row = self.state["experience"]["names"].index(who)
        if name in SCORES or name.endswith("arm_of"):
            return self.bit(name, row)
        at = self.start + self._offset(f"{name.rpartition('.')[0]}.arm_of", row)
        arm = int.from_bytes(self.files[ARRAYS][at : at + 8], "little")
        return self.bit(f"{name}{arm}") if name.endswith("/") else self.bit(name, arm)

    def _offset(self, name, *index):
        shape, (start, stop) = (self.arrays[name][k] for k in ("shape", "data_offsets"))
        index = (*index, *[0] * (len(shape) - len(index)))
        place = int(np.ravel_multi_index(index, shape))
        return start + (stop - start) // int(np.prod(shape)) * place


def noon():
    return 1_000.0


@pytest.fixture(scope="module")
def make(few, letter_encoder):
    """Return routers as they are fitted, before anybody said anything."""

    def fit(**given):
        given |= {"predictor": "ridge", "prior": "none", "clock": noon}
        given |= {"encoder": letter_encoder(), "implicit_signals": ("regenerate",)}
        router = Router(few.candidates, **given).fit(few.records())
        router.add_candidate(Candidate("newcomer", 2.0, 6.0))
        router.add_candidate(Candidate("latest", 3.0, 9.0, prior_quality=0.6))
        return router

    return fit


@pytest.fixture(scope="module")
def untaught(make):
    return make().predict(QUERIES)


@pytest.fixture(scope="module")
def saver(tmp_path_factory, letter_encoder):
    """Save routers, each in a folder of its own."""

    def save(router):
        folder = tmp_path_factory.mktemp("damage") / "router"
        return Saved(router, folder, letter_encoder())

    return save


def live(router, few, names):
    """Let candidates see outcomes, feedback of both kinds, and signals."""
    for i, query in enumerate(few.queries[:8]):
        name = names[i % len(names)]
        decision = router.route(query, among=[name])
        router.record_outcome(decision.id, Outcome(9, 40 * i + 9, latency_seconds=1.0))
        router.record_feedback(decision.id, (i + 1) % 2)
        decision = router.route(query, among=[name])
        router.record_signal(decision.id, "regenerate")
        router.record_feedback(decision.id, i % 2, kind="binary", source="thumbs")
    return router


@pytest.fixture(scope="module", params=["bayes", "policy_gradient"])
def saved(few, make, saver, request):
    """A small router that knows a little of everything; four decisions wait."""
    router = live(make(binary_feedback=request.param), few, NAMES[:4])
    router._experience.looks.fell("lawyer", 0.3)
    router._experience.trials.begin("latest")
    for name in (*FITTED, "lawyer"):
        router.route(few.queries[0], among=[name])
    return saver(router)


def same(one, two, names=NAMES):
    columns = [NAMES.index(name) for name in names]
    return all(
        np.array_equal(getattr(one, a)[:, columns], getattr(two, a)[:, columns])
        for a in COLUMNS
    )


def decided(router, names=NAMES):
    found = [router.route(q, among=list(names), charge_load=False) for q in QUERIES]
    return [(d.candidate, [d.scores[name] for name in names]) for d in found]


def goes_on(saved, loaded, names):
    """Tell whether these candidates are predicted and chosen as if undamaged."""
    is_same = same(loaded.predict(QUERIES), saved.before, names)
    return is_same and decided(loaded, names) == decided(saved.load(), names)


def all_learn(router, names=NAMES):
    """Tell whether feedback still changes what is expected of each candidate."""
    for name in names:
        before = router.predict(QUERIES).quality
        decision = router.route(QUERIES[1], among=[name])
        router.record_outcome(decision.id, Outcome(9, 99, latency_seconds=1.0))
        is_new = router.record_feedback(decision.id, 0.37)
        after, column = router.predict(QUERIES).quality, NAMES.index(name)
        if not is_new or np.array_equal(before[:, column], after[:, column]):
            return False
    return bool(np.isfinite(after).all())


def whose(texts):
    return [re.search(r"candidate '(\S+)' is damaged", text)[1] for text in texts]


@pytest.mark.parametrize("array", HEAD)
@pytest.mark.parametrize("name", ["lawyer", "all-round"])
def test_a_damaged_head_is_dropped_and_those_beside_it_stay_bit_for_bit(
    few, saved, array, name
):
    column = FITTED.index(name)
    index = (0, column) if array.endswith("coefficients") else (column,)
    loaded, (text,) = saved.load_damaged(saved.bit(array, *index))
    assert whose([text]) == [name]
    assert array.rpartition(".")[2] in text
    assert "it starts anew from its prior" in text
    assert goes_on(saved, loaded, [other for other in FITTED if other != name])
    peers = list(zip(few.candidates, few.quality.mean(axis=0), strict=True))
    expected = prior_quality(peers.pop(column)[0], peers)
    blank = loaded.predict([""]).quality[0, column]
    assert blank == pytest.approx(expected)
    assert all_learn(loaded)


@pytest.mark.parametrize("array", [*ARM, *SCORES, "levels"])
@pytest.mark.parametrize("name", ["lawyer", "newcomer"])
def test_a_damaged_arm_is_dropped_and_all_others_stay_bit_for_bit(
    saved, untaught, array, name
):
    if array in SCORES and array not in saved.arrays:
        return  # only beside `policy_gradient`
    number = f"experience.{array}.{name}"
    bit = saved.bit(number) if array == "levels" else saved.arm_bit(array, name)
    loaded, (text,) = saved.load_damaged(bit)
    assert whose([text]) == [name]
    assert array in text
    instead = "its fitted head stays" if name in FITTED else "anew from its prior"
    assert instead in text
    assert goes_on(saved, loaded, [other for other in NAMES if other != name])
    column, now = NAMES.index(name), loaded.predict(QUERIES)
    assert not np.array_equal(now.quality[:, column], saved.before.quality[:, column])
    assert np.array_equal(now.quality[:, column], untaught.quality[:, column])
    width = untaught.uncertainty[:, column]
    assert now.uncertainty[:, column] == pytest.approx(width, rel=0.01)
    watched = loaded._experience.drift.state()["candidates"][name]
    assert watched["quality"]["seen"] == 0 < watched["latency"]["seen"]
    assert all_learn(loaded)


@pytest.mark.parametrize(("place", "what", "instead"), OWN)
def test_a_damaged_number_of_a_candidate_begins_anew_and_all_else_stays(
    saved, place, what, instead
):
    loaded, (text,) = saved.load_damaged(saved.bit(f"experience.{place}"))
    assert f"{what} is damaged (" in text
    assert "was changed since it was saved) and was dropped; " in text
    assert instead in text
    name = place.rpartition(".")[2]
    assert goes_on(saved, loaded, [other for other in NAMES if other != name])
    assert np.array_equal(loaded.predict(QUERIES).quality, saved.before.quality)
    assert all_learn(loaded)


def test_damaged_lengths_and_bills_are_as_before_any_outcome(saved, untaught):
    bits = [saved.bit(f"experience.{table}.lawyer") for table in ("lengths", "costs")]
    now = saved.load_damaged(*bits)[0].predict(QUERIES)
    for name in ("output_tokens", "cost"):
        own, was = (getattr(each, name)[:, 1] for each in (now, saved.before))
        assert np.array_equal(own, getattr(untaught, name)[:, 1])
        assert not np.array_equal(own, was)


def test_drift_is_watched_anew_only_for_whom_it_is_damaged(saved):
    loaded, _ = saved.load_damaged(saved.bit("experience.drift.candidates.lawyer"))
    routers = loaded, saved.load()
    now, was = (r._experience.drift.state()["candidates"] for r in routers)
    assert now.pop("lawyer")["quality"]["seen"] == 0
    assert was.pop("lawyer")["quality"]["seen"] > 0
    assert now == was


def test_several_candidates_that_are_damaged_are_all_named(saved):
    head = saved.bit("quality.0.coefficients", 5, 0)
    arm = saved.arm_bit("online.residuals.moment", "lawyer")
    length = saved.bit("experience.lengths.lawyer")
    loaded, said = saved.load_damaged(head, arm, length)
    assert sorted(whose(said)) == ["calculator", "lawyer", "lawyer"]
    assert goes_on(saved, loaded, ["all-round"])
    assert all_learn(loaded)


def test_who_has_left_and_is_damaged_comes_back_anew(few, make, saver, untaught):
    router = live(make(), few, NAMES)
    router.remove_candidate("lawyer")
    saved, last = saver(router), len(NAMES) - 1  # after those who compete
    loaded, said = saved.load_damaged(saved.bit("online.residuals.arm_of", last))
    assert whose(said) == ["lawyer"]
    for each in (loaded, router):
        each.add_candidate(few.candidates[1])
    now, was = loaded.predict(QUERIES), router.predict(QUERIES)
    assert now.candidates == was.candidates
    assert np.array_equal(now.quality[:, :-1], was.quality[:, :-1])
    assert np.array_equal(now.quality[:, -1], untaught.quality[:, 1])


@pytest.mark.parametrize("where", ["row", "context"])
def test_a_damaged_decision_is_dropped_and_others_take_feedback_once(saved, where):
    ids = [row["decision_id"] for row in saved.state["pending"]]
    lost = len(ids) - 2
    row = saved.bit(f"pending.{lost}")
    bit = row if where == "row" else saved.bit("pending.contexts", lost)
    loaded, (text,) = saved.load_damaged(bit)
    assert f"1 of {len(ids)} decisions await" in text
    assert "feedback will teach nothing" in text
    assert goes_on(saved, loaded, NAMES)
    with pytest.raises(UnknownDecisionError):
        loaded.record_feedback(ids[lost], 1.0)
    whole = saved.load()
    for router in (loaded, whole):
        for other in (ids[lost - 1], ids[lost + 1]):
            assert router.record_feedback(other, 0.3) is True
            assert router.record_feedback(other, 0.9) is False
    assert same(loaded.predict(QUERIES), whole.predict(QUERIES))
    assert not same(loaded.predict(QUERIES), saved.before)


@pytest.mark.parametrize(("place", "what", "instead"), SHARED)
def test_a_router_does_without_what_all_share(saved, place, what, instead):
    if place not in {*saved.places, *saved.arrays}:
        return  # no sources beside `policy_gradient`
    loaded, (text,) = saved.load_damaged(saved.bit(place))
    assert f"{what} " in text
    assert "was changed since it was saved) and was dropped; " in text
    assert instead in text
    assert same(loaded.predict(QUERIES), saved.before)
    assert place == "exploration" or goes_on(saved, loaded, NAMES)
    assert all_learn(loaded)


@pytest.mark.parametrize("table", ["reliability", "trials", "looks"])
def test_an_empty_table_that_is_damaged_is_named(make, saver, table):
    router = make()
    for name in LATE:
        router.remove_candidate(name)
    saved = saver(router)
    loaded, (text,) = saved.load_damaged(saved.bit(f"experience.{table}"))
    assert "is damaged (it was changed since it was saved) and was dropped; " in text
    assert loaded.route(QUERIES[1]).candidate in FITTED


@pytest.mark.parametrize("where", ["names", "kept", "gram/0", "count", "middle"])
def test_arms_that_share_what_is_damaged_all_begin_anew(saved, untaught, where):
    room = "feedback" if where == "middle" else "residuals"
    place = f"experience.{where}" if where in "names kept" else f"online.{room}.{where}"
    if place not in {*saved.places, *saved.arrays}:
        return  # only beside `policy_gradient`
    hit = FITTED if place.startswith("online.residuals") else NAMES
    loaded, said = saved.load_damaged(saved.bit(place))
    assert whose(said) == list(hit)
    why = "whose arms are whose is not known", f"{place} was changed"
    assert all(any(each in text for each in why) for text in said)
    now, n = loaded.predict(QUERIES), len(hit)
    assert np.array_equal(now.quality[:, :n], untaught.quality[:, :n])
    assert hit == NAMES or goes_on(saved, loaded, LATE)
    assert all_learn(loaded)


@pytest.mark.parametrize("target", ["quality", "length"])
def test_without_a_list_of_heads_all_start_from_their_priors(saved, target):
    loaded, said = saved.load_damaged(saved.bit(f"knowledge.{target}"))
    assert whose(said) == list(FITTED)
    assert all(f"the list of heads for {target} was changed" in text for text in said)
    assert not loaded.is_fitted
    assert all_learn(loaded)


@pytest.mark.parametrize("place", NEEDED)
def test_what_a_router_cannot_do_without_is_an_error_that_names_it(saved, place):
    bit = saved.bit(place)
    text = rf"{bit[0]}' .*changed \({re.escape(place)}: .* restore it from a copy, or"
    with pytest.raises(StateFormatError, match=text):
        saved.load(bit)
