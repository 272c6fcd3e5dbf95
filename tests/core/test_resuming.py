"""Going on from what another worker had learned."""

import contextlib
import copy
import io
import json
import threading
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from mixllm_integrations.core import handing_over
from mixllm_integrations.core.drift import DriftEvent
from mixllm_integrations.core.errors import StateFormatError
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, Outcome

QUERIES = ("Explain contract about court?", "Explain sum 1 + 1", "")
DONE = Outcome(40, 300, cost=0.004, latency_seconds=2.0)
EVENT = DriftEvent("lawyer", "quality", -0.3, 42, 900)


@pytest.fixture(scope="module")
def folder(few, tmp_path_factory):
    """Return a folder of a router that was fitted on few records."""
    path = tmp_path_factory.mktemp("saved") / "router"
    Router(few.candidates, predictor="ridge").fit(few.records()).save(path)
    return path


@pytest.fixture(params=["unfitted", "fitted"])
def pair(request, few, folder):
    """Return two workers that were started alike."""
    if request.param == "fitted":
        return Router.load(folder), Router.load(folder)
    return Router(few.candidates), Router(few.candidates)


def view(router):
    found = router.predict(QUERIES)
    return np.stack([found.quality, found.output_tokens, found.cost, found.uncertainty])


def same(one, other):
    # A state keeps what heads are fitted from in half precision, all else whole.
    np.testing.assert_allclose(view(one), view(other), rtol=1e-6, atol=1e-9)


def work(router, n=6, reward=0.1):
    """Let a router decide and learn; return the ids."""
    names = [c.name for c in router.candidates]
    ids = [
        router.route(QUERIES[i % 3], among=[names[i % len(names)]]).id for i in range(n)
    ]
    for decision_id in ids:
        router.record_outcome(decision_id, DONE)
        router.record_feedback(decision_id, reward)
    return ids


def all_of(router):
    """Return everything that is saved, so that nothing can have changed unseen."""
    state, arrays = router._state()
    state.pop("exploration"), state.pop("spending", None)  # they hold ages
    for row in state["pending"]:
        row.pop("age_seconds")
    return plain((state, arrays))


def plain(state):
    told, arrays = state
    return json.dumps(told, default=str), {n: a.tobytes() for n, a in arrays.items()}


# --- whether there is anything to go on from -------------------------------------


@pytest.mark.parametrize("tell", ["outcome", "feedback", "binary"])
@pytest.mark.parametrize("head", ["bayes", "policy_gradient"])
def test_what_is_told_is_learned_online(few, tell, head):
    router = Router(few.candidates, binary_feedback=head)
    decision_id = router.route(QUERIES[0]).id
    assert not router.has_learned_online
    if tell == "outcome":
        router.record_outcome(decision_id, DONE)
    else:
        kind = "binary" if tell == "binary" else "refined"
        router.record_feedback(decision_id, 1.0, kind=kind)
    assert router.has_learned_online
    assert copy.deepcopy(router).has_learned_online


def test_a_fit_is_not_learned_online(folder, few, tmp_path):
    router = Router.load(folder)
    assert not router.has_learned_online
    assert not router.fit(few.records()).has_learned_online
    router.record_feedback(router.route(QUERIES[0]).id, 0.1)
    router.save(tmp_path / "small", compact=True)
    assert Router.load(tmp_path / "small").has_learned_online


# --- going on from a snapshot ----------------------------------------------------


def test_who_resumes_knows_what_the_other_knew(pair):
    a, b = pair
    work(a)
    a.hear_from("log", 12)
    a._drifts.append(EVENT)
    sequence, content = a.snapshot("log")
    assert b.resume(content)
    same(a, b)
    assert (sequence, b.heard("log"), b.drifts) == (12, 12, (EVENT,))
    assert b.has_learned_online
    assert b._waiting.speeds() == a._waiting.speeds()
    assert b.resume(content)  # once more is the same
    same(a, b)
    assert b.drifts == (EVENT,)


def test_who_resumes_goes_on_learning_alike(pair):
    a, b = pair
    work(a)
    b.resume(a.snapshot("log")[1])
    decision_id = a.route(QUERIES[1]).id
    assert b.adopt(decision_id, a.hand_over(decision_id))
    for router in pair:
        router.record_outcome(decision_id, DONE)
        router.record_feedback(decision_id, 1.0)
    same(a, b)


def test_heads_that_were_refitted_travel(folder):
    a, b = Router.load(folder), Router.load(folder)
    work(a, 12)
    a.refit()
    assert b.resume(a.snapshot("log")[1])
    same(a, b)
    assert not b.refit()  # nothing is new since


def test_what_is_set_here_stays(few):
    a = Router(few.candidates, exploration_budget=0.5)
    work(a)
    b = Router(
        few.candidates,
        implicit_signals=("regenerate",),
        willingness_to_pay=0.5,
        exploration_budget=0.1,
        spending_budget=3.0,
        max_cost_per_query=0.2,
    )
    before = {k: v for k, v in vars(b).items() if k in ("_exploration", "_spending")}
    names = ("_settings", "willingness_to_pay", "max_cost_per_query", "encoder")
    mine = [getattr(b, name) for name in names]
    assert b.resume(a.snapshot("log")[1])
    assert [getattr(b, name) for name in names] == mine
    assert {k: vars(b)[k] for k in before} == before
    assert b._experience.signals.wanted == ("regenerate",)
    assert b._decider._exploration is before["_exploration"]


def test_candidates_and_prices_stay_those_of_here(few, world):
    theirs = few.candidates
    dearer = replace(theirs[1], output_cost_per_million_tokens=77.0)
    newcomer = Candidate("newcomer", 1, 1)
    a, b = Router(theirs), Router([dearer, theirs[2], newcomer])
    work(a)
    left = a.route(QUERIES[0], among=[dearer.name]).id
    a.record_signal(left, "regenerate")  # what no log has goes with the snapshot
    assert b.resume(a.snapshot("log")[1])
    assert b.candidates == (dearer, theirs[2], newcomer)
    assert b._experience.replay.labels("newcomer") == 0
    assert b._experience.lengths[dearer.name].count == 2
    b.record_outcome(left, DONE)  # foreseen at another price
    assert b._experience.lengths[dearer.name].count == 3
    assert b._experience.costs[dearer.name].count == 2
    b.add_candidate(theirs[0])
    columns = [[c.name for c in r.candidates].index(theirs[0].name) for r in (a, b)]
    quality = [
        r.predict(QUERIES).quality[:, i] for r, i in zip((a, b), columns, strict=True)
    ]
    np.testing.assert_allclose(*quality, rtol=1e-6)


def test_other_prices_move_no_quality_that_was_learned(few):
    a = Router(few.candidates)
    b = Router([replace(c, output_cost_per_million_tokens=5) for c in few.candidates])
    work(a)
    assert b.resume(a.snapshot("log")[1])
    np.testing.assert_allclose(view(b)[0], view(a)[0], rtol=1e-6)


def test_a_call_under_way_here_teaches_once(pair):
    a, b = pair
    work(a)
    decision_id = b.route(QUERIES[1], among=["lawyer"]).id
    assert b.resume(a.snapshot("log")[1])
    assert b._waiting.in_flight("lawyer") == 1
    before = b._experience.lengths["lawyer"].count, b._experience.replay.mark
    for _ in range(2):
        b.record_outcome(decision_id, DONE)
        b.record_feedback(decision_id, 0.9)
    after = b._experience.lengths["lawyer"].count, b._experience.replay.mark
    assert after[1] == before[1] + 1
    assert after[0] == before[0] + (not np.isnan(b._ledger.get(decision_id).token_cost))
    assert b._waiting.in_flight("lawyer") == 0


def test_a_call_whose_contexts_meant_nothing_teaches_nothing_afterwards(folder, few):
    a, b = Router.load(folder), Router(few.candidates, predictor="ridge")
    decision_id = b.route(QUERIES[0]).id
    b.fit(few.records())
    assert b.resume(a.snapshot("log")[1])
    b.record_feedback(decision_id, 0.0)
    assert not b.has_learned_online


def test_feedback_that_is_in_the_snapshot_is_not_learned_from_the_log(pair):
    a, b = pair
    decision_id = a.route(QUERIES[0]).id
    a.record_feedback(decision_id, 0.0)  # its event comes after the snapshot
    assert b.resume(a.snapshot("log")[1])
    assert not b.record_feedback(decision_id, 0.0)
    same(a, b)


def test_a_twin_with_the_same_call_learns_it_once(few):
    a = Router(few.candidates)
    decision_id = a.route(QUERIES[0]).id
    twin = copy.deepcopy(a)
    a.record_feedback(decision_id, 0.0)
    assert twin.resume(a.snapshot("log")[1])
    assert not twin.record_feedback(decision_id, 0.0)
    same(a, twin)


def test_what_was_adopted_can_be_heard_again(pair):
    a, b = pair
    c = copy.deepcopy(a)
    decision_id = a.route(QUERIES[0]).id
    record = a.hand_over(decision_id)
    b.adopt(decision_id, record)
    b.record_feedback(decision_id, 0.0)
    assert b.resume(c.snapshot("log")[1])  # it was taken before
    assert b.adopt(decision_id, record)
    assert b.record_feedback(decision_id, 0.0)
    a.record_feedback(decision_id, 0.0)
    same(a, b)


def test_what_is_declared_here_is_not_overruled_by_another_declaration(few):
    theirs, ours = (
        Candidate("x", 1, 1, time_to_first_token_seconds=s) for s in (1.0, 9.0)
    )
    b = Router([ours])
    assert b.resume(Router([theirs]).snapshot("log")[1])
    assert b._waiting.speeds() == {"x": (9.0, None)}


# --- what one cannot go on from --------------------------------------------------


def test_other_contexts_rules_and_priors_are_left_alone(few, folder, letter_encoder):
    _, content = Router(few.candidates).snapshot("log")
    others = [
        Router.load(folder),
        Router(few.candidates, encoder=letter_encoder()),
        Router(few.candidates, l2=2.0),
        Router(few.candidates, forgetting=0.9),
        Router(few.candidates, binary_feedback="policy_gradient"),
        Router(few.candidates, prior="none"),
    ]
    for other in others:
        work(other)
        before = all_of(other)
        assert not other.resume(content)
        assert all_of(other) == before


def flipped(content, place):
    bad = bytearray(content)
    bad[place] ^= 1 << place % 8
    return bytes(bad)


def places(content, n):
    """Return places within what is packed, not between."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        for info in file.infolist():
            start = info.header_offset + 30 + len(info.filename)
            step = max(info.compress_size // n, 1)
            yield from range(start, start + info.compress_size - 8, step)


def test_a_damaged_snapshot_changes_nothing(few):
    a, b = Router(few.candidates), Router(few.candidates)
    work(a)
    work(b, 3, 0.9)
    content, before = a.snapshot("log")[1], all_of(b)
    for bad in (
        b"",
        b"nothing",
        content[:-1],
        content[: len(content) // 2],
        content[9:],
    ):
        with pytest.raises(StateFormatError):
            b.resume(bad)
    refused = 0
    for bad in (flipped(content, place) for place in places(content, 20)):
        try:
            found = handing_over.unzipped(bad)
        except StateFormatError:
            refused += 1
            with pytest.raises(StateFormatError):
                b.resume(bad)
        else:  # the same, packed in another way
            assert plain(found) == plain(handing_over.unzipped(content))
    assert refused > 40
    assert all_of(b) == before


def test_damage_to_the_index_of_a_snapshot_is_harmless_or_refused(few):
    a, b = Router(few.candidates), Router(few.candidates)
    work(a)
    content, before = a.snapshot("log")[1], all_of(b)
    refused = 0
    for place in range(len(content) - 250, len(content)):
        b = Router(few.candidates) if b.has_learned_online else b
        try:
            assert b.resume(flipped(content, place))  # a date, say
            same(a, b)
        except StateFormatError:
            refused += 1
            assert all_of(b) == before
    assert refused > 100


def test_a_snapshot_that_swells_is_refused_unread(few, monkeypatch):
    b = Router(few.candidates)
    _, content = b.snapshot("log")
    monkeypatch.setattr(handing_over, "_MOST_BYTES", 10_000)
    with pytest.raises(StateFormatError, match="bytes"):
        b.resume(content)


@pytest.mark.parametrize(
    "key", ["settings", "candidates", "policy", "encoder", "prior"]
)
@pytest.mark.parametrize("value", [None, 3, "x", [{"name": ""}], {"l2": "high"}])
def test_a_snapshot_of_nonsense_is_refused_or_no_use(few, key, value):
    b = Router(few.candidates)
    state, arrays = Router(few.candidates)._state()
    before = all_of(b)
    with contextlib.suppress(StateFormatError):
        assert not b.resume(handing_over.zipped(({**state, key: value}, arrays)))
    assert all_of(b) == before


def test_a_snapshot_lacking_a_file_is_refused(few):
    b = Router(few.candidates)
    with zipfile.ZipFile(io.BytesIO(b.snapshot("log")[1])) as whole:
        files = {name: whole.read(name) for name in whole.namelist()}
    for missing in files:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as file:
            for name, data in files.items():
                if name != missing:
                    file.writestr(name, data)
        with pytest.raises(StateFormatError, match=missing):
            b.resume(content.getvalue())


def test_a_resume_waits_for_a_refit_under_way(folder, monkeypatch):
    a, b = Router.load(folder), Router.load(folder)
    work(a)
    work(b, 12, 0.9)
    content, order = a.snapshot("log")[1], []
    began, take_over = threading.Event(), b._take_over
    rebase = b._experience.rebase

    def slow(*args):
        began.set()
        resuming.join(0.1)
        order.append("refit")
        rebase(*args)

    monkeypatch.setattr(b._experience, "rebase", slow)
    monkeypatch.setattr(
        b, "_take_over", lambda other: (order.append("resume"), take_over(other))
    )
    resuming = threading.Thread(target=lambda: (began.wait(10), b.resume(content)))
    resuming.start()
    b.refit()
    resuming.join(10)
    assert order == ["refit", "resume"]
    same(a, b)
