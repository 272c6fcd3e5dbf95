"""The ablation on a small world, with real contexts, heads and fine-tuning."""

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from mixllm_integrations import ConfigurationError, StaticEncoder
from mixllm_integrations.benchmark import ablation
from mixllm_integrations.benchmark.ablation import FoldedEncoder, run_ablation
from mixllm_integrations.benchmark.ablation_results import (
    BASELINE,
    FIGURES,
    print_ablation,
    third_quality,
)
from mixllm_integrations.benchmark.commands import app
from mixllm_integrations.benchmark.metrics import Curve, ReferencePoint, aiq
from mixllm_integrations.benchmark.splits import stratified_split
from mixllm_integrations.core.encoder import Encoder


@pytest.fixture(scope="module")
def result(world):
    seen = []
    found = run_ablation(
        world,
        seeds=(0, 1),
        predictor="ridge",
        cross_fit=2,
        epochs=1,
        command="a test",
        on_run=seen.append,
    )
    assert seen == list(found.runs)
    return found


@pytest.fixture(scope="module")
def source(world):
    """A split of the world, with the whole context on the shipped encoder."""
    bench = ablation._Bench.make(world, 0, "ridge", 20)
    return ablation._Source.make(bench, StaticEncoder.load(), None)


@pytest.fixture(scope="module")
def blocks(source):
    return source.knowledge.context.blocks


def test_every_context_is_judged_on_every_split(result):
    for name in result.contexts:
        assert [run.seed for run in result.runs if run.context == name] == [0, 1]
    for run in result.runs:
        assert set(run.figures) == set(FIGURES)
        assert math.isfinite(run.figures["aiq"])


def test_each_block_but_the_constant_is_left_out_once(result, blocks):
    left_out = {n.split(" − ")[1] for n in result.contexts if " − " in n}
    assert left_out == set(blocks) - {"constant"}


def test_the_fine_tuned_encoder_stands_with_and_without_the_posterior(result):
    for label in ("fine-tuned", "fine-tuned, cross-fitted"):
        assert f"+ {label}" in result.contexts
        assert f"+ {label} + posterior" in result.contexts
        assert f"everything, {label}" in result.contexts


def test_a_left_out_block_is_gone_from_the_heads_contexts(result, blocks):
    width = {run.context: run.n_features for run in result.runs if run.seed == 0}
    whole = width["everything"]
    for name in set(blocks) - {"constant"}:
        lost = blocks[name].stop - blocks[name].start
        assert width[f"everything − {name}"] == whole - lost
    assert width[BASELINE] == blocks["embedding"].stop + 1


def test_heads_on_all_columns_are_those_of_a_router(source, blocks):
    """A row with parts left out differs from the router in these parts alone."""
    found = source.run("all", list(blocks)[:-1])
    assert found.figures == pytest.approx(source.whole("whole").figures)


def test_the_posterior_tells_who_is_right_where_domains_decide(result):
    assert result.gain("+ posterior", "mse")[0] < 0


def test_a_gain_is_taken_split_by_split(result):
    mean, spread = result.gain("everything", "aiq", over="+ posterior")
    gaps = [
        one.figures["aiq"] - other.figures["aiq"]
        for one, other in zip(
            *([r for r in result.runs if r.context == n] for n in
              ("everything", "+ posterior")),
            strict=True,
        )
    ]  # fmt: skip
    assert mean == pytest.approx(sum(gaps) / 2)
    assert spread == pytest.approx(abs(gaps[0] - gaps[1]) / 2)


def test_only_the_training_split_is_fine_tuned_on(world, monkeypatch):
    given = []

    def spy(queries, tags, *, encoder, **options):
        given.append((list(queries), options["seed"]))
        return encoder

    monkeypatch.setattr(ablation, "finetune_encoder", spy)
    run_ablation(world, seeds=(5,), predictor="ridge", cross_fit=3)
    rows, held_out = stratified_split(world, seed=5)
    train = {world.queries[i] for i in rows}
    test = {world.queries[i] for i in held_out}
    whole, *folds = [set(queries) for queries, _ in given]
    assert whole == train
    assert len(folds) == 3
    assert all(fold < train and not fold & test for fold in folds)
    # Each training query is outside of exactly one fold.
    assert sorted(q for fold in folds for q in train - fold) == sorted(train)


def test_each_training_query_meets_an_encoder_without_it():
    class Constant:
        dimension, revision = 2, "0"

        def __init__(self, name, value):
            self.id, self.value = name, value

        def encode(self, texts):
            return np.full((len(texts), 2), self.value, dtype=np.float32)

    folded = FoldedEncoder(
        Constant("whole", 0.0),
        [(Constant("a", 1.0), ["p", "q"]), (Constant("b", 2.0), ["r"])],
    )
    assert isinstance(folded, Encoder)
    assert folded.encode(["r", "new", "q", "p"])[:, 0].tolist() == [2.0, 0.0, 1.0, 1.0]
    assert folded.encode([]).shape == (0, 2)


def test_the_thirds_of_a_curve_that_goes_up_frame_its_average():
    # Costs 0.1, 0.4, 0.7, 1.0 … on 4 points, a third is one point: 0.1 and 1.0.
    curve = Curve(np.array([0.1, 0.4, 1.0]), np.array([0.5, 0.8, 0.9]))
    point = ReferencePoint(0, 0.8, 0.01, 0.001)
    low, high = (third_quality(curve, point, high=h, n_points=4) for h in (False, True))
    assert (low, high) == (0.5, 0.9)
    # The average of 0.5, 0.8, 0.8 and 0.9.
    assert aiq(curve, point, n_points=4) == pytest.approx(0.75)


def test_a_third_that_the_curve_does_not_reach_is_unknown():
    curve = Curve(np.array([0.9]), np.array([1.0]))
    point = ReferencePoint(0, 0.8, 0.01, 0.001)
    assert math.isnan(third_quality(curve, point, high=False))
    assert third_quality(curve, point, high=True) == 1.0


def test_the_tables_name_every_context(result):
    out = io.StringIO()
    print_ablation(result, Console(file=out, width=110))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 110
    for name in result.contexts:
        assert any(name in line for line in lines)


def test_the_result_becomes_json_without_holes(result):
    found = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert [row["context"] for row in found["summary"]] == list(result.contexts)
    assert found["command"] == "a test"
    assert set(found["finetuning"]) == {"paper, 0", "paper, 1"}
    assert found["versions"]["torch"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"seeds": ()}, "at least one seed"), ({"cross_fit": 1}, "not 1")],
)
def test_what_cannot_be_measured_is_said(world, options, message):
    with pytest.raises(ConfigurationError, match=message):
        run_ablation(world, **options)


def test_the_command_prints_tables_and_writes_json(world, tmp_path):
    file = tmp_path / "world.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        for number, record in enumerate(world.records()):
            row = {name: getattr(record, name) for name in record.__slots__}
            lines.write(json.dumps(row | {"query_id": number // 3}) + "\n")
    arguments = ("ablation", "--data", file, "--seeds", 1, "--predictor", "ridge")
    done = CliRunner().invoke(
        app,
        [str(a) for a in (*arguments, "--loss", "none", "--json", tmp_path / "a.json")],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    assert "plain embedding" in done.output
    found = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert found["seeds"] == [0]
    assert not any("fine-tuned" in run["context"] for run in found["runs"])
