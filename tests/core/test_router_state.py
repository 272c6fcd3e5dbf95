"""What a router knows survives its process: whole, bit for bit, or with a warning."""

import contextlib
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.errors import (
    ConfigurationError,
    MixLLMError,
    StateFormatError,
    UnknownDecisionError,
)
from mixllm_integrations.core.predictors.heads import prior_quality
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, Outcome

KINDS = ("ridge", "forest", "knn", "mlp", "ensemble", "auto")
QUERY = "Explain contract about court for tenant case 7?"
QUERIES = ["", QUERY, "Explain integral of prime?", "recipe with butter", "東京 🤖"]
ARRAYS = ("quality", "output_tokens", "cost", "uncertainty")
NEWCOMER = Candidate("newcomer", 2.0, 6.0, prior_quality=0.5, tools=False)


def same(one, two):
    return one.candidates == two.candidates and all(
        np.array_equal(getattr(one, a), getattr(two, a)) for a in ARRAYS
    )


def choices(router, queries):
    return [
        (d.candidate, dict(d.scores), dict(d.excluded), d.explored)
        for d in router.route_batch(queries, charge_load=False)
    ]


def lived(router, few):
    """Let a router see feedback, outcomes, someone leave and someone come."""
    for index, query in enumerate(few.queries[:12]):
        decision = router.route(query, among=[few.candidates[index % 3].name])
        router.record_outcome(decision.id, Outcome(10, 30 * index, latency_seconds=1.0))
        router.record_feedback(decision.id, index % 2)
    router.add_candidate(NEWCOMER)
    router.record_feedback(router.route(QUERY, among=["newcomer"]).id, 0.25)
    router.remove_candidate("lawyer")
    return router


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "router"


# --- there and back -----------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_router_predicts_and_decides_the_same_bit_for_bit(
    few, fitted, folder, clock, kind
):
    router = lived(fitted(predictor=kind, exploration=0.3, forgetting=0.98), few)
    router.save(folder)
    loaded = Router.load(folder, clock=clock)
    queries = [*QUERIES, *few.queries]
    assert same(router.predict(queries), loaded.predict(queries))
    assert choices(router, QUERIES) == choices(loaded, QUERIES)
    router.add_candidate(few.candidates[1])
    loaded.add_candidate(few.candidates[1])
    assert same(router.predict(queries), loaded.predict(queries))


@pytest.mark.parametrize("forgetting", [1.0, 0.9])
def test_a_loaded_router_goes_on_learning_the_same(
    few, fitted, folder, clock, forgetting
):
    router = lived(fitted(forgetting=forgetting), few)
    router.save(folder)
    loaded = Router.load(folder, clock=clock)
    for each in (router, loaded):
        for query in few.queries[:5]:
            decision = each.route(query, among=["calculator"])
            each.record_feedback(decision.id, 0.9)
            each.record_outcome(decision.id, Outcome(3, 77))
    assert same(router.predict(QUERIES), loaded.predict(QUERIES))
    router.fit(few.records("calculator", "all-round"))
    loaded.fit(few.records("calculator", "all-round"))
    assert same(router.predict(QUERIES), loaded.predict(QUERIES))


def test_saving_twice_gives_the_same_files(few, fitted, folder, clock, tmp_path):
    router = lived(fitted(), few)
    router.save(folder)
    Router.load(folder, clock=clock).save(tmp_path / "again")
    for name in ("state.json", "arrays.safetensors", "manifest.json"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_router_that_was_never_fitted_survives_too(few, folder, clock):
    router = Router([*few.candidates, NEWCOMER], clock=clock)
    router.record_feedback(router.route(QUERY).id, 0.0)
    router.save(folder)
    loaded = Router.load(folder, clock=clock)
    assert not loaded.is_fitted
    assert same(router.predict(QUERIES), loaded.predict(QUERIES))
    loaded.fit(few.records())
    assert loaded.is_fitted


def test_records_with_no_tags_survive(few, folder, clock):
    router = Router(few.candidates, predictor="ridge", clock=clock)
    router.fit([replace(r, tags=()) for r in few.records()])
    router.save(folder)
    loaded = Router.load(folder, clock=clock)
    assert same(router.predict(QUERIES), loaded.predict(QUERIES))


def test_partial_labels_and_a_newcomer_survive(few, fitted, folder, clock):
    router = fitted("calculator", "lawyer")
    router.fit(few.records("all-round")[:30])
    router.save(folder)
    loaded = Router.load(folder, clock=clock)
    assert same(router.predict(QUERIES), loaded.predict(QUERIES))


def test_settings_survive(folder, clock):
    odd = replace(
        NEWCOMER,
        context_window=9_000,
        vision=True,
        structured_output=False,
        time_to_first_token_seconds=0.5,
        seconds_per_output_token=0.01,
        max_concurrency=3,
    )
    given_settings = {
        "predictor": "knn",
        "willingness_to_pay": 0.123,
        "exploration": 0.5,
        "exploration_form": "leverage",
        "waiting_weight": 0.7,
        "waiting_tolerance_seconds": 12.0,
        "max_cost_per_query": 0.5,
        "n_domains": 7,
        "l2": 3.0,
        "forgetting": 0.5,
        "decision_capacity": 99,
        "decision_max_age_seconds": 60.0,
        "seed": 11,
    }
    router = Router([odd, Candidate("モデル 🤖", 0, 0)], clock=clock, **given_settings)
    router.save(folder)
    loaded = Router.load(folder, clock=clock)
    assert loaded.candidates == router.candidates
    assert loaded._settings == router._settings
    assert loaded._policy == router._policy
    for name in ("waiting_tolerance_seconds", "max_cost_per_query"):
        assert getattr(loaded, name) == given_settings[name]


@pytest.mark.parametrize(
    "setting",
    [
        "willingness_to_pay",
        "waiting_tolerance_seconds",
        "max_cost_per_query",
        "decision_max_age_seconds",
    ],
)
def test_a_setting_without_end_survives(folder, clock, setting):
    router = Router([NEWCOMER], clock=clock, **{setting: math.inf})
    router.save(folder)
    loaded = Router.load(folder, clock=clock)
    if setting == "decision_max_age_seconds":
        assert loaded._settings.decision_max_age_seconds == math.inf
    else:
        assert getattr(loaded, setting) == math.inf


def test_numbers_of_numpy_are_saved_like_any(folder, clock):
    odd = Candidate(
        "np",
        np.float32(0.5),
        np.int64(2),
        context_window=np.int32(9_000),
        prior_quality=np.float32(0.25),
    )
    router = Router(
        [odd],
        clock=clock,
        willingness_to_pay=np.float32(0.5),
        max_cost_per_query=np.float32(0.5),
        n_domains=np.int64(5),
        l2=np.float32(2.0),
    )
    decision = router.route(QUERY, input_tokens=np.int64(5))
    told = Outcome(np.int64(5), np.int32(7), latency_seconds=np.float32(0.5))
    router.record_outcome(decision.id, told)
    router.record_feedback(decision.id, np.float32(0.5))
    router.save(folder)
    loaded = Router.load(folder, clock=clock)
    assert loaded.candidates == router.candidates
    assert same(router.predict(QUERIES), loaded.predict(QUERIES))


def test_a_router_whose_candidates_have_all_left_survives(few, fitted, folder, clock):
    router = fitted()
    before = router.predict(QUERIES)
    for candidate in few.candidates:
        router.remove_candidate(candidate.name)
    router.save(folder)
    loaded = Router.load(folder, clock=clock)
    assert loaded.candidates == ()
    for candidate in few.candidates:
        loaded.add_candidate(candidate)
    assert same(before, loaded.predict(QUERIES))


def test_a_later_save_replaces_an_earlier_one(few, fitted, folder, clock):
    router = fitted()
    router.save(folder)
    router.record_feedback(router.route(QUERY).id, 0.0)
    router.save(str(folder))
    assert same(
        router.predict(QUERIES), Router.load(str(folder), clock=clock).predict(QUERIES)
    )
    assert [p.name for p in folder.parent.iterdir()] == ["router"]


def test_no_prompt_is_saved(few, clock, folder):
    marker = "zebra9"
    records = [replace(r, query=f"{r.query} {marker}") for r in few.records()]
    router = Router(few.candidates, predictor="knn", clock=clock).fit(records)
    decision = router.route(f"{QUERY} {marker}")
    router.record_feedback(decision.id, 1.0)
    router.save(folder)
    for file in folder.iterdir():
        content = file.read_bytes()
        assert marker.encode() not in content
        assert b"tenant" not in content


def test_nothing_saved_is_a_pickle(few, fitted, folder):
    lived(fitted(predictor="ensemble"), few).save(folder)
    assert sorted(p.name for p in folder.iterdir()) == [
        "arrays.safetensors",
        "manifest.json",
        "state.json",
    ]
    for name in ("manifest.json", "state.json"):
        json.loads((folder / name).read_text("utf-8"))
    data = (folder / "arrays.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    kinds = {v["dtype"] for k, v in header.items() if k != "__metadata__"}
    assert kinds <= {"F16", "F32", "F64", "I32", "I64", "BOOL"}


# --- pending decisions --------------------------------------------------------


def test_a_pending_decision_gets_its_feedback_after_a_restart(fitted, folder, clock):
    router = fitted()
    first, second, third = (router.route(QUERY, among=["lawyer"]) for _ in range(3))
    router.record_feedback(first.id, 1.0)
    router.record_outcome(second.id, Outcome(5, 100))
    router.save(folder)
    loaded = Router.load(folder, clock=clock)
    assert loaded.record_feedback(first.id, 0.0) is False
    for each in (router, loaded):
        assert each.record_feedback(second.id, 0.0) is True
        each.record_outcome(second.id, Outcome(5, 10_000))  # known already
        each.record_outcome(third.id, Outcome(5, 300))
        assert each.record_feedback(third.id, 0.0) is True
    assert same(router.predict(QUERIES), loaded.predict(QUERIES))


def test_a_pending_decision_keeps_its_age(fitted, folder, clock):
    router = fitted(decision_max_age_seconds=100.0)
    old = router.route(QUERY)
    clock.move(60)
    young = router.route(QUERY)
    router.save(folder)
    other = type(clock)()
    other.seconds = 5.0  # a process that has just begun
    loaded = Router.load(folder, clock=other)
    other.move(39)
    assert old.id in loaded._ledger
    other.move(2)
    with pytest.raises(UnknownDecisionError):
        loaded.record_feedback(old.id, 1.0)
    assert loaded.record_feedback(young.id, 1.0) is True


def test_load_does_not_survive_a_restart(fitted, folder, clock):
    router = fitted()
    decision = router.route(QUERY)
    router.save(folder)
    loaded = Router.load(folder, clock=clock)
    assert loaded._waiting.in_flight(decision.candidate) == 0
    loaded.record_outcome(decision.id, Outcome(5, 10))
    assert loaded._waiting.in_flight(decision.candidate) == 0


# --- encoders -----------------------------------------------------------------


@pytest.fixture
def own(few, letter_encoder, clock):
    encoder = letter_encoder()
    router = Router(few.candidates, encoder=encoder, predictor="ridge", clock=clock)
    return router.fit(few.records())


def test_an_encoder_of_ones_own_is_passed_again(own, letter_encoder, folder, clock):
    own.save(folder)
    with pytest.raises(ConfigurationError, match=r"pass it as .Router.load"):
        Router.load(folder, clock=clock)
    loaded = Router.load(folder, encoder=letter_encoder(), clock=clock)
    assert same(own.predict(QUERIES), loaded.predict(QUERIES))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"dimension": 25}, "dimension"),
        ({"id": "digits"}, "'digits'"),
        ({"revision": "2"}, "revision"),
    ],
)
def test_another_encoder_is_refused(own, letter_encoder, folder, changed, named):
    own.save(folder)
    with pytest.raises(StateFormatError, match=named):
        Router.load(folder, encoder=letter_encoder(**changed))


def test_the_shipped_encoder_is_not_the_one_of_somebody_else(own, fitted, folder):
    own.save(folder)
    with pytest.raises(StateFormatError, match="pass the same encoder, or fit a new"):
        Router.load(folder, encoder=StaticEncoder.load())


def test_the_shipped_encoder_of_another_revision_is_refused(fitted, folder, rewrite):
    fitted().save(folder)
    rewrite(folder, lambda state, _: state["encoder"].update(revision="0000"))
    with pytest.raises(StateFormatError, match="revision '0000'"):
        Router.load(folder)


# --- damage whose checksums hold ----------------------------------------------


def test_an_arm_that_is_damaged_is_dropped_and_the_others_go_on(
    fitted, folder, rewrite, clock
):
    router = fitted()
    for name in ("lawyer", "calculator"):
        router.record_feedback(router.route(QUERY, among=[name]).id, 0.0)
    router.save(folder)
    before, untaught = router.predict(QUERIES), fitted().predict(QUERIES)

    def damage(state, arrays):
        place = state["experience"]["names"].index("lawyer")
        arm = arrays["online.residuals.arm_of"][place]
        arrays["online.residuals.moment"][arm, 3] = np.nan

    rewrite(folder, damage)
    with pytest.warns(RuntimeWarning, match="candidate 'lawyer' is damaged") as caught:
        loaded = Router.load(folder, clock=clock)
    assert len(caught) == 1
    after = loaded.predict(QUERIES)
    for name in ARRAYS:
        was, now = getattr(before, name), getattr(after, name)
        assert np.array_equal(was[:, [0, 2]], now[:, [0, 2]])
    assert np.array_equal(after.quality[:, 1], untaught.quality[:, 1])
    assert after.uncertainty[:, 1] == pytest.approx(before.uncertainty[:, 1], rel=0.01)
    assert loaded.record_feedback(loaded.route(QUERY, among=["lawyer"]).id, 1.0)


@pytest.mark.parametrize(
    ("part", "value"), [("weights", -5.0), ("tail", np.inf), ("gram", -1e9)]
)
def test_a_design_matrix_that_is_no_such_thing_is_dropped(
    few, fitted, folder, rewrite, clock, part, value
):
    router = fitted("calculator", "lawyer")
    router.fit(few.records("all-round")[:30])  # a matrix of its own
    router.record_feedback(router.route(QUERY, among=["all-round"]).id, 0.0)
    router.save(folder)

    def damage(state, arrays):
        place = state["experience"]["names"].index("all-round")
        arm = arrays["online.designs.arm_of"][place]
        number = arrays["online.designs.base_of"][arm] if part == "gram" else arm
        arrays[f"online.designs.{part}/{number}"].flat[0] = value

    rewrite(folder, damage)
    with pytest.warns(RuntimeWarning, match="candidate 'all-round' is damaged"):
        loaded = Router.load(folder, clock=clock)
    before, after = router.predict(QUERIES), loaded.predict(QUERIES)
    assert np.array_equal(before.quality[:, :2], after.quality[:, :2])
    assert np.array_equal(before.uncertainty[:, :2], after.uncertainty[:, :2])
    assert after.uncertainty[:, 2] == pytest.approx(before.uncertainty[:, 2], rel=0.01)


HEADS = [
    ("ridge", "quality.0.coefficients"),
    ("ridge", "quality.0.intercepts"),
    ("ridge", "length.0.coefficients"),
    ("forest", "quality.0.values"),
    ("forest", "length.0.values"),
    ("knn", "quality.0.means"),
    ("mlp", "quality.0.output"),
    ("ridge", "heads.smearing"),
    ("ridge", "heads.mean_quality"),
    ("ridge", "heads.mean_output_tokens"),
    ("ridge", "costs.input_factor"),
    ("ridge", "costs.cost_factor"),
    ("ridge", "costs.fixed_cost"),
]


@pytest.fixture(scope="module")
def taught(few, tmp_path_factory):
    """A router of each kind that had feedback, in a folder of its own."""
    made = {}
    for kind in {kind for kind, _ in HEADS}:
        router = Router(few.candidates, predictor=kind).fit(few.records())
        router.record_feedback(router.route(QUERY, among=["lawyer"]).id, 0.0)
        folder = tmp_path_factory.mktemp(kind) / "router"
        router.save(folder)
        made[kind] = router, folder
    return made


@pytest.mark.parametrize(("kind", "array"), HEADS)
@pytest.mark.parametrize("everywhere", [True, False])
def test_a_head_that_is_not_finite_is_dropped_and_the_others_go_on(
    few, taught, folder, rewrite, kind, array, everywhere
):
    router, saved_there = taught[kind]
    shutil.copytree(saved_there, folder)

    def damage(_, arrays):
        column = arrays[array].T[1:2]
        column[..., slice(None) if everywhere else -1] = np.nan

    rewrite(folder, damage)
    with pytest.warns(RuntimeWarning, match="candidate 'lawyer' is damaged") as caught:
        loaded = Router.load(folder)
    assert len(caught) == 1
    queries = [*QUERIES, *few.queries]
    before, after = router.predict(queries), loaded.predict(queries)
    for name in ARRAYS:
        assert np.isfinite(getattr(after, name)).all()
        was, now = getattr(before, name)[:, [0, 2]], getattr(after, name)[:, [0, 2]]
        assert now == pytest.approx(was, rel=1e-9)
    # From its prior and its peers, and without what was learned of the lost head.
    blank = loaded.predict([""]).quality[0, 1]
    means = few.quality.mean(axis=0)
    others = [(few.candidates[i], float(means[i])) for i in (0, 2)]
    expected = prior_quality(few.candidates[1], others)
    assert blank == pytest.approx(expected, abs=1e-9)
    assert loaded.record_feedback(loaded.route(QUERY, among=["lawyer"]).id, 1.0)
    if kind == "ridge":
        loaded.fit(few.records("lawyer"))
        assert loaded.predict(few.queries).quality[:, 1].std() > 0.01


def test_what_a_lost_head_predicted_teaches_nothing(fitted, folder, rewrite, clock):
    router = fitted()
    late = router.route(QUERY, among=["lawyer"])
    other = router.route(QUERY, among=["calculator"])
    router.save(folder)
    rewrite(folder, lambda _, a: a["heads.smearing"].__setitem__(1, np.nan))
    with pytest.warns(RuntimeWarning, match="candidate 'lawyer' is damaged"):
        loaded = Router.load(folder, clock=clock)
    before = loaded.predict(QUERIES)
    assert loaded.record_feedback(late.id, 0.0) is True
    assert same(before, loaded.predict(QUERIES))
    loaded.record_feedback(other.id, 0.0)
    assert not same(before, loaded.predict(QUERIES))


def test_if_every_head_is_damaged_the_router_still_routes(
    few, fitted, folder, rewrite, clock
):
    fitted().save(folder)
    rewrite(folder, lambda _, a: a["quality.0.coefficients"].fill(np.inf))
    with pytest.warns(RuntimeWarning, match="damaged"):
        loaded = Router.load(folder, clock=clock)
    assert not loaded.is_fitted
    assert np.isfinite(loaded.predict(QUERIES).quality).all()
    assert loaded.route(QUERY).candidate in [c.name for c in few.candidates]


def test_a_pending_decision_that_is_damaged_is_left_out(fitted, folder, rewrite, clock):
    router = fitted()
    bad, good = router.route(QUERY), router.route(QUERY)
    router.save(folder)
    rewrite(folder, lambda s, _: s["pending"][0].update(predicted_quality="x"))
    loaded = Router.load(folder, clock=clock)
    assert loaded._ledger.unreadable == 1
    with pytest.raises(UnknownDecisionError):
        loaded.record_feedback(bad.id, 1.0)
    assert loaded.record_feedback(good.id, 1.0) is True


@pytest.fixture(scope="module")
def saved(few, tmp_path_factory):
    router = Router(few.candidates, predictor="ridge").fit(few.records())
    router.record_feedback(router.route(QUERY).id, 0.0)
    router.route(QUERY)
    folder = tmp_path_factory.mktemp("saved") / "router"
    router.save(folder)
    state = json.loads((folder / "state.json").read_bytes())
    return router, folder, state


def leaves(value, path=()):
    yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, below in items:
            yield from leaves(below, (*path, key))


JUNK = [None, True, -1, 1e308, 0.5, 10**30, "x", "", [], {}, [1, "a"], {"a": 1}]


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore:.* is damaged .*and was dropped:RuntimeWarning")
def test_no_change_of_the_state_fails_without_saying_what_is_wrong(
    saved, rewrite, data
):
    _, folder, state = saved
    places = [path for path in leaves(state) if path]
    path = data.draw(st.sampled_from(places))
    junk = data.draw(st.sampled_from([*JUNK, "nothing at all"]))
    changed = json.loads(json.dumps(state))
    above = changed
    for key in path[:-1]:
        above = above[key]
    if junk == "nothing at all":
        del above[path[-1]]
    else:
        above[path[-1]] = junk

    def edit(now, _):
        now.clear()
        now.update(changed)

    rewrite(folder, edit)
    loaded = None
    with contextlib.suppress(MixLLMError):
        loaded = Router.load(folder)
    if loaded is not None:
        for candidate in loaded.candidates:
            loaded.route(QUERY, among=[candidate.name])
        loaded.predict(QUERIES)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore:.* is damaged .*and was dropped:RuntimeWarning")
def test_no_change_of_the_arrays_fails_without_saying_what_is_wrong(
    saved, rewrite, data
):
    router, folder, _ = saved
    router.save(folder)
    how = data.draw(st.sampled_from(["gone", "cut", "flat", "nan", "huge", "text"]))

    def edit(_, arrays):
        name = data.draw(st.sampled_from(sorted(arrays)))
        array = arrays[name]
        if how == "gone":
            del arrays[name]
        elif how == "cut":
            arrays[name] = array[:-1].copy()
        elif how == "flat":
            arrays[name] = array.ravel()[:, None].copy()
        elif how == "text":
            arrays[name] = np.frombuffer(b"text", dtype=np.uint8).copy()
        elif array.dtype.kind == "f":
            huge = min(1e30, float(np.finfo(array.dtype).max))
            array[...] = np.nan if how == "nan" else huge
        else:
            array[...] = 2**30 if array.dtype.kind == "i" else True

    rewrite(folder, edit)
    loaded = None
    with contextlib.suppress(MixLLMError):
        loaded = Router.load(folder)
    if loaded is not None:
        for candidate in loaded.candidates:
            loaded.route(QUERY, among=[candidate.name])
        assert np.isfinite(loaded.predict(QUERIES).quality).all()


def test_chance_goes_on_after_a_restart_where_it_was(few, folder):
    router = Router(few.candidates, randomisation=0.5, seed=3).fit(few.records())
    drawn = []
    for n in range(40):
        drawn.append(router.route(few.queries[0], charge_load=False).explored)
        router.save(folder / str(n))
        router = Router.load(folder / str(n))
    other = Router(few.candidates, randomisation=0.5, seed=3).fit(few.records())
    assert drawn == [
        other.route(few.queries[0], charge_load=False).explored for _ in range(40)
    ]
    assert 5 < sum(drawn) < 35
