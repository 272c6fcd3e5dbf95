"""The demo without keys: real decisions, scripted answers, honest totals."""

import io
import json
import time
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from mixllm_integrations.cli.demo import (
    DemoPrompt,
    RoutedPrompt,
    Totals,
    load_prompts,
    route_prompts,
    scripted_setup,
    shipped_router,
    strongest_of,
)
from mixllm_integrations.cli.screen import as_json, console_of, show_run

PROMPTS = load_prompts()
GPT_4O, FLASH = "gpt-4o-2024-05-13", "gemini-1.5-flash-002"
PRICES = {
    FLASH: (0.075, 0.30),
    "llama-3.1-70b-instruct": (0.88, 0.88),
    "gemini-1.5-pro-002": (1.25, 5.0),
    GPT_4O: (5.0, 15.0),
}


def run(prompts=PROMPTS, *, willingness_to_pay: float | None = None):
    setup = scripted_setup(PROMPTS)
    if willingness_to_pay is not None:
        setup.router.willingness_to_pay = willingness_to_pay
    return setup, list(route_prompts(setup, prompts))


@pytest.fixture(scope="module")
def whole():
    return run()


def test_the_prompts_are_about_forty_and_varied() -> None:
    assert 38 <= len(PROMPTS) <= 45
    assert len({p.prompt for p in PROMPTS}) == len(PROMPTS)
    assert len({p.kind for p in PROMPTS}) >= 25
    assert {"en", "de", "fr", "es", "zh", "ja"} <= {p.language for p in PROMPTS}
    assert all(p.prompt.strip() and p.answer.strip() for p in PROMPTS)


def test_the_shipped_router_knows_four_models_at_their_list_prices() -> None:
    router = shipped_router()
    assert router.is_fitted
    assert {
        c.name: (c.input_cost_per_million_tokens, c.output_cost_per_million_tokens)
        for c in router.candidates
    } == PRICES
    assert strongest_of(router.candidates).name == GPT_4O


def test_every_prompt_is_answered_by_its_script(whole) -> None:
    _, steps = whole
    assert [step.prompt for step in steps] == list(PROMPTS)
    assert [step.answer for step in steps] == [p.answer for p in PROMPTS]


def test_routing_is_worth_showing(whole) -> None:
    _, steps = whole
    totals = Totals.of(steps, list(PRICES))
    assert min(totals.answers.values()) >= 1  # everyone is the right one for something
    assert max(totals.answers.values()) <= 0.75 * len(PROMPTS)
    assert totals.cost_share < 0.3
    assert totals.quality > 0.94 * totals.strongest_quality


def test_the_decision_is_the_one_that_the_prices_and_predictions_ask_for(whole) -> None:
    setup, steps = whole
    fresh = shipped_router()
    expected = fresh.predict([p.prompt for p in PROMPTS])
    score = expected.quality - expected.cost / setup.router.willingness_to_pay
    by_hand = [expected.candidates[i] for i in score.argmax(axis=1)]
    # What was learned of lengths on the way may tip a close call, no more.
    same = sum(
        step.candidate == name for step, name in zip(steps, by_hand, strict=True)
    )
    assert same >= len(PROMPTS) - 2


def test_the_cost_is_tokens_times_list_price(whole) -> None:
    setup, _ = whole
    answer = setup.model.invoke(PROMPTS[0].prompt)
    usage, decision = answer.usage_metadata, answer.response_metadata["mixllm"]
    asked, answered = PRICES[decision["candidate"]]
    bill = usage["input_tokens"] * asked + usage["output_tokens"] * answered
    assert decision["cost"] == pytest.approx(bill / 1e6)
    assert decision["cost"] == pytest.approx(decision["predicted_cost"], rel=0.25)


def test_the_demo_is_the_same_every_time(whole) -> None:
    _, steps = whole
    _, again = run()
    assert [replace(s, seconds=0.0) for s in again] == [
        replace(s, seconds=0.0) for s in steps
    ]


def test_who_pays_more_gets_more(whole) -> None:
    bills = []
    for usd in (1e-9, 0.005, 0.05, 1e3):
        _, steps = run(willingness_to_pay=usd)
        bills.append((sum(s.cost for s in steps), sum(s.quality for s in steps)))
    assert bills == sorted(bills)
    _, misers = run(PROMPTS[:5], willingness_to_pay=1e-9)
    assert {s.candidate for s in misers} <= {FLASH, "llama-3.1-70b-instruct"}


def test_totals_are_sums_and_means() -> None:
    def step(name: str, quality: float, cost: float) -> RoutedPrompt:
        prompt = DemoPrompt("kind", "en", "?", "!")
        return RoutedPrompt(prompt, name, "!", quality, 0.9, cost, 0.02, 0.1)

    steps = [step("a", 0.5, 0.001), step("a", 0.7, 0.002), step("b", 0.9, 0.027)]
    totals = Totals.of(steps, ["a", "b", "c"])
    assert totals.answers == {"a": 2, "b": 1, "c": 0}
    assert totals.cost == pytest.approx(0.03)  # 0.001 + 0.002 + 0.027
    assert totals.strongest_cost == pytest.approx(0.06)  # 3 · 0.02
    assert totals.cost_share == pytest.approx(0.5)
    assert totals.quality == pytest.approx(0.7)  # (0.5 + 0.7 + 0.9) / 3
    assert totals.strongest_quality == pytest.approx(0.9)


def test_a_free_strongest_candidate_makes_no_division_by_zero() -> None:
    totals = Totals(1, 0.0, 0.0, 0.5, 0.5, {"local": 1})
    assert totals.cost_share == 1.0


def test_the_demo_ends_within_ten_seconds_and_says_what_is_scripted(
    mixllm_process,
) -> None:
    started = time.monotonic()
    finished = mixllm_process("demo")
    assert time.monotonic() - started < 10
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    lines = finished.stdout.splitlines()
    assert lines[0].startswith("The answers are scripted: no model is called")
    rows = [line for line in lines if line.startswith(tuple(p.kind for p in PROMPTS))]
    assert len(rows) == len(PROMPTS)
    assert all(sum(name in row for name in PRICES) == 1 for row in rows)
    assert any(
        line.startswith("cost") and f"always asking {GPT_4O}" in line for line in lines
    )
    assert any(line.startswith("predicted quality") for line in lines)


def test_json_holds_each_decision_and_the_totals(mixllm) -> None:
    told = json.loads(mixllm("demo", "--json").stdout)
    assert "scripted" in told["about"]
    assert told["strongest"] == GPT_4O
    assert len(told["prompts"]) == told["totals"]["prompts"] == len(PROMPTS)
    assert sum(told["totals"]["answers"].values()) == len(PROMPTS)
    costs = [prompt["cost"] for prompt in told["prompts"]]
    assert told["totals"]["cost"] == pytest.approx(sum(costs))
    assert {"kind", "prompt", "answer", "candidate", "quality"} <= set(
        told["prompts"][0]
    )


def test_json_is_as_the_run_was(whole) -> None:
    setup, steps = whole
    told = json.loads(as_json(setup, steps))
    assert [p["candidate"] for p in told["prompts"]] == [s.candidate for s in steps]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_on_a_terminal_rows_fit_and_the_bill_runs_along(width, whole, monkeypatch):
    monkeypatch.setattr("mixllm_integrations.cli.screen._PAUSE_SECONDS", 0.0)
    setup, steps = whole
    screen = io.StringIO()
    console = Console(
        file=screen, force_terminal=True, color_system="standard", width=width
    )
    totals = show_run(console, setup, steps, planned=len(steps))
    shown = screen.getvalue()
    assert "\x1b[35mgpt-4o-2024-05-13" in shown  # the dearest in magenta
    assert f"{len(steps)}/{len(steps)} prompts" in shown
    assert totals == Totals.of(steps, list(PRICES))
    plain = io.StringIO()
    unstyled = Console(file=plain, width=width)
    show_run(unstyled, setup, steps, planned=len(steps))
    lines = plain.getvalue().splitlines()
    assert max(map(cell_len, lines)) <= width
    kinds = tuple(prompt.kind for prompt in PROMPTS)
    rows = [number for number, line in enumerate(lines) if line.startswith(kinds)]
    assert rows == list(range(rows[0], rows[0] + len(PROMPTS)))  # none is broken


def test_a_pipe_is_wide_enough_for_every_row() -> None:
    assert console_of(io.StringIO()).width == 110
