"""How the demo looks: lines that move on a terminal, plain lines elsewhere."""

import json
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import IO

from rich import box
from rich.cells import set_cell_size
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mixllm_integrations.cli.demo import DemoSetup, RoutedPrompt, Totals
from mixllm_integrations.plots.console import PlainConsole

__all__ = ["as_json", "console_of", "show_run"]

# From the cheapest candidate to the dearest.
_COLOURS = ("green", "cyan", "blue", "magenta")
_KIND, _QUALITY, _COST = 16, 7, 10
_PLAIN_WIDTH = 110
_BAR = 16  # the table fits 80 columns
_PAUSE_SECONDS = 0.05  # on a terminal: slow enough to be read along


def console_of(file: IO[str] | None = None) -> Console:
    """Return where to show a run: as wide as the terminal, else wide enough.

    Parameters
    ----------
    file
        ``None``: standard output.
    """
    console = PlainConsole(file=file, highlight=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    return console


class _Look:
    """Widths and colours of one run.

    Parameters
    ----------
    console
        Where it is shown.
    setup
        Whose candidates are shown.
    """

    def __init__(self, console: Console, setup: DemoSetup) -> None:
        self.console = console
        by_price = sorted(
            setup.router.candidates, key=lambda c: c.output_cost_per_million_tokens
        )
        last = max(len(by_price) - 1, 1)
        steps = len(_COLOURS) - 1
        self.colour = {
            c.name: _COLOURS[round(place * steps / last)]
            for place, c in enumerate(by_price)
        }
        self.name = max(len(c.name) for c in by_price)
        taken = _KIND + self.name + _QUALITY + _COST + 4 * 2
        self.prompt = max(console.width - taken - 1, 12)

    def line(self, cells: Iterable[str], *, style: str = "", name: str = "") -> Text:
        """Return one row: kind, prompt, candidate, quality, cost."""
        kind, prompt, candidate, quality, cost = cells
        return Text.assemble(
            (set_cell_size(kind, _KIND) + "  ", style or "dim"),
            (set_cell_size(_shortened(prompt, self.prompt), self.prompt) + "  ", style),
            (set_cell_size(candidate, self.name) + "  ", style or self.colour[name]),
            (quality.rjust(_QUALITY) + "  ", style),
            (cost.rjust(_COST), style),
        )

    def show(self, line: Text) -> None:
        """Print a row, cut where the terminal ends."""
        self.console.print(line, no_wrap=True, overflow="crop")

    def step(self, step: RoutedPrompt) -> Text:
        """Return the row of a prompt that was answered."""
        return self.line(
            (
                step.prompt.kind,
                step.prompt.prompt,
                step.candidate,
                f"{step.quality:.2f}",
                f"{step.cost:.6f}",
            ),
            name=step.candidate,
        )


def _shortened(text: str, width: int) -> str:
    flat = " ".join(text.split())
    if Text(flat).cell_len <= width:
        return flat
    return set_cell_size(flat, width - 1).rstrip() + "…"


def _progress(totals: Totals, planned: int) -> Table:
    footer = Table.grid(padding=(1, 2, 0, 0))
    footer.add_row(
        ProgressBar(total=planned, completed=totals.prompts, width=24),
        Text.assemble(
            f"{totals.prompts}/{planned} prompts   {totals.cost:.4f} USD instead of "
            f"{totals.strongest_cost:.4f} ",
            (f"({totals.cost_share:.1%})", "bold green"),
        ),
    )
    return footer


def _table(setup: DemoSetup, totals: Totals, look: _Look) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("candidate", no_wrap=True)
    table.add_column("USD per million\ntokens", justify="right", no_wrap=True)
    table.add_column("answers", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for c in sorted(setup.router.candidates, key=lambda c: -totals.answers[c.name]):
        share = totals.answers[c.name] / totals.prompts
        table.add_row(
            Text(c.name, look.colour[c.name]),
            f"{c.input_cost_per_million_tokens:g} / "
            f"{c.output_cost_per_million_tokens:g}",
            str(totals.answers[c.name]),
            f"{share:.0%}",
            Text("█" * round(_BAR * share), look.colour[c.name]),
        )
    return table


def _bill(setup: DemoSetup, totals: Totals) -> Table:
    strongest = setup.strongest.name
    rows = {
        "cost": Text.assemble(
            (f"{totals.cost:.4f} USD", "bold"),
            f", {totals.cost_share:.1%} of the {totals.strongest_cost:.4f} USD for "
            f"always asking {strongest}",
        ),
        "predicted quality": Text.assemble(
            (f"{totals.quality:.2f}", "bold"),
            f" on average, {strongest} would have {totals.strongest_quality:.2f}",
        ),
        "willingness to pay": Text(
            f"{setup.router.willingness_to_pay:g} USD for one right answer more; "
            "try another by --willingness-to-pay"
        ),
    }
    table = Table.grid(padding=(0, 2))
    for name, said in rows.items():
        table.add_row(Text(name, "dim"), said)
    return table


def show_run(
    console: Console,
    setup: DemoSetup,
    steps: Iterable[RoutedPrompt],
    *,
    planned: int,
) -> Totals:
    """Show each decision as it is made, then what all came to.

    Parameters
    ----------
    console
        A terminal gets colours and a running bill, anything else plain lines.
    setup
        What answers.
    steps
        From `route_prompts`; at least one.
    planned
        How many there will be.

    Returns
    -------
    Totals
        What was shown last.
    """
    look = _Look(console, setup)
    names = tuple(c.name for c in setup.router.candidates)
    for line in setup.about:
        console.print(line)
    console.print()
    heads = ("kind", "prompt", "goes to", "quality", "cost USD")
    look.show(look.line(heads, style="bold"))
    done: list[RoutedPrompt] = []
    with Live(console=console, transient=True, auto_refresh=False) as live:
        for step in steps:
            done.append(step)
            look.show(look.step(step))
            if console.is_terminal:
                progress = _progress(Totals.of(done, names), planned)
                live.update(progress, refresh=True)
                time.sleep(_PAUSE_SECONDS)
    totals = Totals.of(done, names)
    console.print(_table(setup, totals, look))
    console.print(_bill(setup, totals))
    return totals


def as_json(setup: DemoSetup, steps: Iterable[RoutedPrompt]) -> str:
    """Return a run as one JSON object.

    Parameters
    ----------
    setup
        What answers.
    steps
        From `route_prompts`; at least one.
    """
    done = list(steps)
    totals = Totals.of(done, tuple(c.name for c in setup.router.candidates))
    result = {
        "about": " ".join(setup.about),
        "willingness_to_pay": setup.router.willingness_to_pay,
        "strongest": setup.strongest.name,
        "totals": {**asdict(totals), "cost_share": totals.cost_share},
        "prompts": [{**asdict(step.prompt), **_flat(step)} for step in done],
    }
    return json.dumps(result, ensure_ascii=False, indent=2)


def _flat(step: RoutedPrompt) -> dict[str, object]:
    return {k: v for k, v in asdict(step).items() if k != "prompt"}
