"""Any bit of a saved router may flip: it is an error, or a warning and a router."""

import json
import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.errors import StateFormatError
from mixllm_integrations.core.persistence import packed
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, Outcome

FILES = STATE, ARRAYS, MANIFEST = "state.json", "arrays.safetensors", "manifest.json"
QUERIES = ["", "Explain contract about court for tenant?", "integral of prime"]


class Flipping:
    """A saved router of which bits are flipped."""

    def __init__(self, router, folder, encoder):
        self.folder, self.given = folder, {"encoder": encoder, "clock": noon}
        router.save(folder)
        self.files = {name: (folder / name).read_bytes() for name in FILES}

    def load(self, name, bit):
        """Load it with one bit flipped."""
        for each, data in self.files.items():
            (self.folder / each).write_bytes(data)
        data = bytearray(self.files[name])
        data[bit // 8] ^= 1 << bit % 8
        (self.folder / name).write_bytes(data)
        return Router.load(self.folder, **self.given)

    def bits(self):
        """Return a bit of each part of the state, and of each array."""
        manifest, data = json.loads(self.files[MANIFEST]), self.files[ARRAYS]
        for _, start, stop, _ in manifest["parts"][STATE]:
            yield STATE, 8 * ((start + stop) // 2)
        first = 8 + int.from_bytes(data[:8], "little")
        for about in json.loads(data[8:first]).values():
            start, stop = about["data_offsets"]
            if stop > start:
                yield ARRAYS, 8 * (first + start) + 1


def noon():
    return 1_000.0


@pytest.fixture(scope="module", params=["fitted", "never fitted"])
def flipping(few, letter_encoder, tmp_path_factory, request):
    given = {"predictor": "ridge", "prior": "none", "clock": noon}
    given |= {"encoder": letter_encoder(), "implicit_signals": ("regenerate",)}
    router = Router(few.candidates, binary_feedback="policy_gradient", **given)
    if request.param == "fitted":
        router.fit(few.records())
    router.add_candidate(Candidate("newcomer", 2.0, 6.0))
    for i, query in enumerate(few.queries[:8]):
        decision = router.route(query, among=[router.candidates[i % 4].name])
        router.record_signal(decision.id, "regenerate")
        router.record_outcome(decision.id, Outcome(9, 40 * i + 9, latency_seconds=1.0))
        kind = ("refined", "binary")[i // 4]
        router.record_feedback(decision.id, i % 2, kind=kind, source="thumbs")
    router.route(QUERIES[1])
    folder = tmp_path_factory.mktemp("bits") / "router"
    return Flipping(router, folder, letter_encoder())


def predicted(router):
    found = router.predict(QUERIES)
    columns = found.quality, found.output_tokens, found.cost, found.uncertainty
    return np.stack(columns)


def decided(router):
    found = [router.route(query, charge_load=False) for query in QUERIES]
    return [(d.candidate, dict(d.scores), d.explored) for d in found]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_is_an_error_or_a_warning_or_changes_nothing(flipping, data):
    name = data.draw(st.sampled_from(FILES))
    bit = data.draw(st.integers(0, 8 * len(flipping.files[name]) - 1))
    loaded, remedy = None, ""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            loaded = flipping.load(name, bit)
        except StateFormatError as error:
            remedy = str(error)
    if loaded is None:
        assert re.search("restore it from a copy|upgrade mixllm-integrations", remedy)
        return
    assert {w.category for w in said} <= {RuntimeWarning}
    if not said:
        files = packed(*loaded._state())
        assert all(files[n] == flipping.files[n] for n in (STATE, ARRAYS))
    assert np.isfinite(predicted(loaded)).all()
    names = {c.name for c in loaded.candidates}
    assert {d.candidate for d in loaded.route_batch(QUERIES)} <= names


@pytest.mark.filterwarnings("ignore:.*(is damaged|was changed since):RuntimeWarning")
def test_a_router_saved_after_damage_loads_without_a_warning_and_as_it_was(
    flipping, tmp_path
):
    n_loaded = 0
    for name, bit in flipping.bits():
        try:
            loaded = flipping.load(name, bit)
        except StateFormatError:
            continue
        n_loaded += 1
        loaded.save(tmp_path / "again")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = Router.load(tmp_path / "again", **flipping.given)
        assert np.array_equal(predicted(loaded), predicted(again))
        assert decided(loaded) == decided(again)
    assert n_loaded > 40
