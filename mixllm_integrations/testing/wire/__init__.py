"""A server on this machine that speaks OpenAI's and Anthropic's protocols.

For tests of your own application over real clients, without a network and
without a key::

    from mixllm_integrations.testing.wire import Fault, LoopbackServer, Reply, Usage

    with LoopbackServer() as server:
        gpt = server.model("gpt-4o-mini", answers=["Hello."], usage=Usage(10, 2))
        claude = server.model("claude-haiku-4-5")
        gpt.fail_with(503, times=2)
        claude.misbehave(Fault(hang_seconds=5))
        ...  # ChatOpenAI(base_url=server.openai_url, ...)
        ...  # ChatAnthropic(base_url=server.anthropic_url, ...)
        assert server.requests_to("gpt-4o-mini")[0].body["temperature"] == 0

Read `server` for what it does, `models` for what a model says and how it
misbehaves, `faults` for usual faults, at random or for a time, `parts` for what
a script consists of. Each protocol is a module
with what the provider refuses beside it.
"""

from mixllm_integrations.testing.wire.faults import (
    FAULTS,
    FaultRule,
    at_random,
    either,
    while_between,
)
from mixllm_integrations.testing.wire.models import ServedModel
from mixllm_integrations.testing.wire.parts import Fault, Reply, ToolCall, Usage
from mixllm_integrations.testing.wire.server import LoopbackServer, RecordedRequest

__all__ = [
    "FAULTS",
    "Fault",
    "FaultRule",
    "LoopbackServer",
    "RecordedRequest",
    "Reply",
    "ServedModel",
    "ToolCall",
    "Usage",
    "at_random",
    "either",
    "while_between",
]
