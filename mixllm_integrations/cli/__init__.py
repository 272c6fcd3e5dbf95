"""The command `mixllm`: what a newcomer types first.

Nothing heavy is imported until a command needs it, so help and version answer
at once.
"""

import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from mixllm_integrations import __version__
from mixllm_integrations.core.errors import ConfigurationError, MixLLMError

__all__ = ["app", "main"]

_LAZY = {
    "collect": "mixllm_integrations.cli.collect",
    "fit": "mixllm_integrations.cli.fit",
    "evaluate": "mixllm_integrations.cli.evaluate",
    "calibrate": "mixllm_integrations.cli.calibrate",
    "report": "mixllm_integrations.cli.report",
    "inspect": "mixllm_integrations.cli.inspect",
    "benchmark": "mixllm_integrations.benchmark.commands",
}


class _LazyGroup(TyperGroup):
    """Imports the module of a sub-command only when that one is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401
        """Return the names of all commands, imported or not."""
        return [*super().list_commands(ctx), *_LAZY]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401
        """Return the command of that name, importing its module if needed."""
        command: Any = None
        if cmd_name in _LAZY:
            # An app of one command is that command, any other is a group.
            command = typer.main.get_command(import_module(_LAZY[cmd_name]).app)
            command.name = cmd_name
        else:
            command = super().get_command(ctx, cmd_name)
        if command is not None:
            _name_no_type(command, ctx)
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Write the help of the command without a command."""
        _name_no_type(self, ctx)
        super().format_help(ctx, formatter)


def _name_no_type(command: Any, ctx: Any) -> None:  # noqa: ANN401
    """Let help show flags without a type: `--json <bool>` looks as if it took one."""
    for option in command.get_params(ctx):
        if getattr(option, "is_flag", False) or getattr(option, "count", False):
            option.metavar = ""
    for under in getattr(command, "commands", {}).values():
        _name_no_type(under, ctx)


app = typer.Typer(
    name="mixllm",
    cls=_LazyGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog="A way through: collect or record answers, fit, evaluate, calibrate, serve, "
    "report (an app writes the log). mixllm COMMAND --help shows examples of each.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - how Typer calls it
    if wanted:
        typer.echo(f"mixllm-integrations {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Print the version and leave.",
        ),
    ] = False,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            help="Log what is done to standard error; -vv: everything.",
        ),
    ] = 0,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Log one JSON object a line.")
    ] = False,
) -> None:
    """Send each prompt to the cheapest of your models that will answer it well."""
    del version  # its callback has seen to it
    if verbose or log_json:
        from mixllm_integrations.cli.logs import log_to_stderr, unlog

        handler = log_to_stderr(verbose, as_json=log_json)
        context.call_on_close(lambda: unlog(handler))


@app.command(
    epilog="[bold]Examples[/bold]\n\n  mixllm demo\n\n  mixllm demo -w 0.001 -n 5\n\n"
    "  mixllm demo --live --model openai:gpt-6-luna\n\n"
    "Next, with prompts and models of your own: mixllm collect --help.\n\n"
    "Exit codes: 0 shown, 2 something cannot be used."
)
def demo(
    *,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Ask real models: those whose keys are set (OPENAI_API_KEY, "
            "ANTHROPIC_API_KEY) and an Ollama on this machine.",
        ),
    ] = False,
    json_wanted: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a table.")
    ] = False,
    willingness_to_pay: Annotated[
        float | None,
        typer.Option(
            "--willingness-to-pay",
            "-w",
            metavar="USD",
            help="USD that one right answer more is worth; less is cheaper.",
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--prompts",
            "-n",
            min=1,
            metavar="N",
            help="Route only the first N prompts (with --live 8, if not given).",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="PROVIDER:NAME",
            help="With --live: ask this model, e.g. openai:gpt-6-luna or "
            "ollama:llama3.2; may be given several times.",
        ),
    ] = None,
) -> None:
    """Watch about 40 prompts find their model; needs no key."""
    if model and not live:
        raise ConfigurationError("--model chooses real models: add --live")
    from mixllm_integrations.cli.demo import load_prompts, route_prompts, scripted_setup
    from mixllm_integrations.cli.screen import as_json, console_of, show_run

    prompts = load_prompts()
    if live:
        from mixllm_integrations.cli.live import LIVE_PROMPTS, live_setup

        setup = live_setup(prompts, model or ())
        prompts = prompts[: count or LIVE_PROMPTS]
    else:
        setup = scripted_setup(prompts)
        prompts = prompts[:count]
    if willingness_to_pay is not None:
        setup.router.willingness_to_pay = willingness_to_pay
    steps = route_prompts(setup, prompts)
    if json_wanted:
        typer.echo(as_json(setup, steps))
    else:
        from mixllm_integrations.cli.options import next_step

        show_run(console_of(), setup, steps, planned=len(prompts))
        next_step("label prompts of your own: mixllm collect --help shows the files")


def main() -> None:
    """Run the command line; an expected error is one line and exit code 2.

    What the library raises on purpose is expected, and a file that cannot be used.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # some prompts are in Chinese
            stream.reconfigure(errors="replace")
    try:
        app()
    except MixLLMError as error:
        _fail(str(error))
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        _fail(f"{error.filename}: {error.strerror}; pass another path")


def _fail(why: str) -> NoReturn:
    from mixllm_integrations.plots.console import PlainConsole

    PlainConsole(stderr=True, soft_wrap=True).print(
        f"error: {why}", style="red", highlight=False
    )
    sys.exit(2)
