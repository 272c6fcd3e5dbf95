"""What routing adds to a call of a LlamaIndex LLM, and what handlers count of it.

Run ``mixllm benchmark llama-index``. The LLMs are scripted and answer at once, so
that nothing but the routing is measured.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mixllm_integrations.benchmark.call_figures import (
    BARE,
    FITTED,
    PRIORS,
    CallFigures,
)
from mixllm_integrations.benchmark.overhead import machine_facts
from mixllm_integrations.benchmark.splits import stratified_split
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.benchmark.versions import package_versions

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

    from mixllm_integrations.llama_index import MixLLM

__all__ = [
    "COUNTED",
    "MODES",
    "AtOnce",
    "LlamaFigures",
    "measure_llama_index",
    "print_llama_index",
]

#: How LLMs are asked where time is measured.
MODES = ("chat", "achat", "stream_chat", "astream_chat")
#: How they are asked where tokens are counted: every way that there is.
COUNTED = (
    *MODES,
    *("complete", "acomplete", "stream_complete", "astream_complete"),
    *(f"{mode}_with_tools" for mode in MODES),
    *("predict", "apredict", "stream", "astream"),
    *("structured_predict", "astructured_predict"),
    *("stream_structured_predict", "astream_structured_predict"),
    *("predict_and_call", "apredict_and_call"),
)
_N_CANDIDATES = 11
_WARM_UP = 30
_THINKS_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class AtOnce:
    """Many calls of `achat` at the same time.

    Parameters
    ----------
    n
        How many.
    thinks_seconds
        How long the LLM takes for each.
    seconds
        How long all took together, by who was called.
    answered
        How many got their own answer.
    under_way
        How many still count as load when all have ended.
    """

    n: int
    thinks_seconds: float
    seconds: dict[str, float]
    answered: int
    under_way: int


@dataclass(frozen=True, slots=True)
class LlamaFigures:
    """What routing costs LlamaIndex on one machine.

    Parameters
    ----------
    command, machine, versions
        How, where and with what it was measured.
    n_candidates
        How many were routed over.
    calls
        By mode: a bare scripted LLM, and the same behind each router.
    at_once
        Many calls at the same time.
    tokens
        By mode: events, tokens read and tokens written as `TokenCountingHandler`
        counts them, of the bare LLM and of the routed one.
    """

    command: str
    machine: str
    versions: dict[str, str]
    n_candidates: int
    calls: dict[str, CallFigures]
    at_once: AtOnce
    tokens: dict[str, dict[str, tuple[int, int, int]]]

    @property
    def counts_agree(self) -> bool:
        """Whether handlers count the same of both in every mode."""
        return all(len(set(counts.values())) == 1 for counts in self.tokens.values())

    def to_json(self) -> dict[str, Any]:
        """Return it as plain lists, numbers and strings."""
        return {**asdict(self), "counts_agree": self.counts_agree}


def measure_llama_index(
    table: BenchmarkTable,
    *,
    n_calls: int = 1000,
    n_at_once: int = 1000,
    command: str = "",
    on_step: Callable[[str], None] | None = None,
) -> LlamaFigures:
    """Measure what routing adds, many calls at once, and tokens.

    Parameters
    ----------
    table
        Complete queries: 80 % to fit on, the rest are the prompts. Its first
        eleven candidates are routed over.
    n_calls
        How many calls of each mode are timed.
    n_at_once
        How many are made at the same time.
    command
        Noted in the result.
    on_step
        Told what is measured next.
    """
    from mixllm_integrations.core.router import Router

    say = on_step or (lambda _step: None)
    machine = machine_facts()
    rows, held_out = stratified_split(table, seed=0)
    few = table.select(rows).only(table.names[:_N_CANDIDATES])
    say(f"fitting {len(rows):,} queries")
    fitted = Router(few.candidates).fit(few.records())
    drawn = np.random.default_rng(0).choice(held_out, size=n_calls)
    prompts = [table.queries[i] for i in drawn]
    asked = {
        BARE: _scripted(),
        PRIORS: _routed(Router(few.candidates)),
        FITTED: _routed(fitted),
    }
    say(f"calling each LLM {n_calls:,} times, in {len(MODES)} ways")
    calls = {
        mode: CallFigures.of(_call_seconds(mode, asked, prompts)) for mode in MODES
    }
    say(f"calling {n_at_once:,} times at once")
    at_once = asyncio.run(_at_once(fitted, n_at_once))
    say("counting tokens")
    return LlamaFigures(
        command=command,
        machine=machine,
        versions=package_versions(("llama-index-core",)),
        n_candidates=len(few.names),
        calls=calls,
        at_once=at_once,
        tokens={mode: _counts(mode) for mode in COUNTED},
    )


def print_llama_index(found: LlamaFigures, console: Console) -> None:
    """Print the figures as tables.

    Parameters
    ----------
    found
        What was measured.
    console
        Where to.
    """
    table = Table(
        title=f"What routing over {found.n_candidates} adds to a call in LlamaIndex",
        caption=f"{found.machine}. Streams: until the first chunk.",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("what", no_wrap=True)
    for head in ("takes", "adds p50", "adds p99"):
        table.add_column(head, justify="right", no_wrap=True)
    for mode, figures in found.calls.items():
        for who, timing in figures.seconds.items():
            row = [f"{mode} {who}", f"{1e3 * timing.p50:.3f} ms"]
            if who != BARE:
                added = figures.added[who]
                row += [f"{1e3 * added.p50:.3f} ms", f"{1e3 * added.p99:.3f} ms"]
            table.add_row(*row)
        table.add_section()
    console.print(table)
    once = found.at_once
    for who, seconds in once.seconds.items():
        console.print(
            f"{once.n:,} x achat at once, of an LLM that thinks "
            f"{once.thinks_seconds} s, {who}: {seconds:.2f} s"
        )
    console.print(f"{once.answered:,} answered; {once.under_way} still under way")
    agree = sum(len(set(counts.values())) == 1 for counts in found.tokens.values())
    console.print(f"token counts equal in {agree} of {len(found.tokens)} modes")


def _scripted(**settings: Any) -> "LLM":  # noqa: ANN401
    from mixllm_integrations.testing import ScriptedLLM

    return ScriptedLLM(**{"answers": ["it is four"], "usage": (10, 3), **settings})


def _routed(router: Any, **settings: Any) -> "MixLLM":  # noqa: ANN401
    from mixllm_integrations.llama_index import CandidateLLM, MixLLM

    entries = [
        CandidateLLM(llm=_scripted(model=one.name, **settings), name=one.name)
        for one in router.candidates
    ]
    return MixLLM(entries, router=router)


def _call_seconds(
    mode: str, asked: dict[str, Any], prompts: Sequence[str]
) -> dict[str, list[float]]:
    """Time each call; the LLMs take turns, and each begins as often."""
    from llama_index.core.base.llms.types import ChatMessage

    async def run() -> dict[str, list[float]]:
        spent: dict[str, list[float]] = {who: [] for who in asked}
        order = [*asked]
        for number, prompt in enumerate([*[prompts[0]] * _WARM_UP, *prompts]):
            messages = [ChatMessage(content=prompt, role="user")]
            for who in order:
                seconds = await _timed(mode, asked[who], messages)
                if number >= _WARM_UP:
                    spent[who].append(seconds)
            order = [*order[1:], order[0]]
        return spent

    gc.collect()
    return asyncio.run(run())


async def _timed(mode: str, llm: Any, messages: Any) -> float:  # noqa: ANN401
    method = getattr(llm, mode)
    began = time.perf_counter()
    answer = method(messages)
    if mode.startswith("a"):
        answer = await answer
    if "stream" not in mode:
        return time.perf_counter() - began
    if mode.startswith("a"):
        await anext(answer)
        seconds = time.perf_counter() - began
        async for _ in answer:
            pass
        return seconds
    next(answer)
    seconds = time.perf_counter() - began
    for _ in answer:
        pass
    return seconds


async def _at_once(router: Any, n: int) -> AtOnce:  # noqa: ANN401
    from llama_index.core.base.llms.types import ChatMessage

    def said(messages: list[ChatMessage]) -> str:
        return f"re: {messages[-1].content}"

    script = {"delay_seconds": _THINKS_SECONDS, "answers": said}
    llms = {BARE: _scripted(**script), FITTED: _routed(router, **script)}
    seconds: dict[str, float] = {}
    answers: list[Any] = []
    for who, llm in llms.items():
        began = time.perf_counter()
        answers = await asyncio.gather(
            *(
                llm.achat([ChatMessage(content=f"What is {k} + 2?", role="user")])
                for k in range(n)
            )
        )
        seconds[who] = time.perf_counter() - began
    right = sum(
        answer.message.content == f"re: What is {k} + 2?"
        for k, answer in enumerate(answers)
    )
    load = router.load_here()
    under_way = sum(int(calls) for calls, _ in load.values())
    return AtOnce(n, _THINKS_SECONDS, seconds, right, under_way)


def _counts(mode: str) -> dict[str, tuple[int, int, int]]:
    """Return what a handler counts of one call, of a bare LLM and a routed one."""
    from mixllm_integrations.llama_index import CandidateLLM, MixLLM

    entry = CandidateLLM(
        llm=_tooled(mode),
        name="one",
        input_cost_per_million_tokens=0.0,
        output_cost_per_million_tokens=0.0,
    )
    return {
        BARE: _counted(mode, _tooled(mode)),
        PRIORS: _counted(mode, MixLLM([entry])),
    }


def _tooled(mode: str) -> "LLM":
    from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock

    if "structured" not in mode and "call" not in mode and "tools" not in mode:
        return _scripted()
    name = "Total" if "structured" in mode else "total"
    call = ToolCallBlock(tool_name=name, tool_kwargs={"value": 4})
    return _scripted(answers=[ChatMessage(role="assistant", blocks=[call])])


def _counted(mode: str, llm: Any) -> tuple[int, int, int]:  # noqa: ANN401
    from llama_index.core.callbacks import CallbackManager, TokenCountingHandler

    handler = TokenCountingHandler(tokenizer=str.split)
    llm.callback_manager = CallbackManager([handler])
    asyncio.run(_ended(mode, llm))
    return (
        len(handler.llm_token_counts),
        handler.prompt_llm_token_count,
        handler.completion_llm_token_count,
    )


async def _ended(mode: str, llm: Any) -> None:  # noqa: ANN401
    """Call an LLM in one of the modes `COUNTED`, and read all that it says."""
    answer = getattr(llm, mode)(*_arguments(mode))
    if mode.startswith("a"):
        answer = await answer
    if "stream" in mode and mode.startswith("a"):
        async for _ in answer:
            pass
    elif "stream" in mode:
        for _ in answer:
            pass


def _arguments(mode: str) -> tuple[Any, ...]:
    from llama_index.core.base.llms.types import ChatMessage
    from llama_index.core.prompts import PromptTemplate
    from llama_index.core.tools import FunctionTool
    from pydantic import create_model

    def total(value: int) -> int:
        """Return a sum."""
        return value

    question = "What is 2 + 2?"
    if "call" in mode or "tools" in mode:
        return ([FunctionTool.from_defaults(total)], question)
    if "structured" in mode:
        made = create_model("Total", __doc__="A sum.", value=(int, ...))
        return (made, PromptTemplate(question))
    if "chat" in mode:
        return ([ChatMessage(content=question, role="user")],)
    return (question if "complete" in mode else PromptTemplate(question),)
