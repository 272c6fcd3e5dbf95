"""The chain run "MixLLM" around the chosen model's own LLM run.

Opening it costs microseconds even if nobody listens, so without a handler it
is left out.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForChainRun,
    BaseCallbackHandler,
    BaseCallbackManager,
    CallbackManager,
    CallbackManagerForChainRun,
)
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers import BaseTracer
from langchain_core.utils.uuid import uuid7

from mixllm_integrations.langchain.tracing.telemetry import CallSpan, open_span
from mixllm_integrations.serving import RECORD_KEY

if TYPE_CHECKING:
    from mixllm_integrations.langchain.calls.request import Request
    from mixllm_integrations.langchain.pool import ModelPool

__all__ = ["RUN_NAME", "AsyncChainRun", "ChainRun", "inside"]

RUN_NAME = "MixLLM"

_OWN_KEYS = ("run_name", "run_id", "callbacks")
_NO_RUN: AbstractContextManager[None] = nullcontext()
M = TypeVar("M", CallbackManager, AsyncCallbackManager)


class _Inside:
    """Makes a config the one that surrounds what is called; see `inside`."""

    __slots__ = ("_config", "_token")

    def __init__(self, config: RunnableConfig) -> None:
        self._config = config.copy()
        self._config.pop("run_id", None)  # one run has it, not all that it starts

    def __enter__(self) -> None:
        self._token = var_child_runnable_config.set(self._config)

    def __exit__(self, *_: object) -> None:
        var_child_runnable_config.reset(self._token)


def inside(config: RunnableConfig) -> AbstractContextManager[None]:
    """Call a model as a step of a run, as a sequence calls its own steps.

    A bound model merges its config with that of the step which surrounds it,
    and of two parents takes the one found there.

    Parameters
    ----------
    config
        What the model is called with.

    Returns
    -------
    AbstractContextManager
        In which to call it.
    """
    return _Inside(config) if config.get("callbacks") is not None else _NO_RUN


class _Run:
    """What both kinds of runs know: the config, and who listens."""

    __slots__ = (
        "_config",
        "_inside",
        "_manager",
        "_named",
        "_run_ids",
        "record",
        "span",
    )

    def __init__(
        self, config: RunnableConfig, manager: BaseCallbackManager, model: "ModelPool"
    ) -> None:
        self._config = config
        self._manager = manager
        self._named = model.name or RUN_NAME
        self._run_ids = model.run_ids
        self._inside: UUID | None = None
        #: Stands in the run's metadata; what is put into it is seen there.
        self.record: dict[str, Any] = {}
        #: What OpenTelemetry is told, whether or not anybody listens.
        self.span: CallSpan = open_span(config)

    @property
    def heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._manager.handlers)

    def _started_with(self, record: dict[str, Any] | None) -> dict[str, Any]:
        if record is not None:
            self.record.update(record)
        self._manager.add_metadata({RECORD_KEY: self.record}, inherit=False)
        return {
            "name": self._config.get("run_name") or self._named,
            "run_id": self._config.get("run_id"),
        }

    def follow(self, request: "Request") -> None:
        """Hear of every decision of a request, and show its record in the run.

        Parameters
        ----------
        request
            What is being answered; the first decision is made.
        """
        request.follow, request.seen = self.note, self.record
        self.note(request.call.decision.id)

    def note(self, decision_id: str, *run_ids: UUID | None) -> None:
        """Remember to which decision these runs lead, for feedback on them.

        Parameters
        ----------
        decision_id
            The decision in force.
        *run_ids
            Those beside the one that the caller gave, and the run around it.
        """
        given, around = self._config.get("run_id"), self._manager.parent_run_id
        root = None if around is None else self._root_of(around)
        self._run_ids.note(decision_id, given, root, around, self._inside, *run_ids)

    def _root_of(self, run_id: UUID) -> UUID | None:
        """Return the outermost run, which a tracer knows if there is one."""
        for handler in self._manager.handlers:
            if isinstance(handler, BaseTracer):
                found = handler.order_map.get(run_id)
                if found is not None:
                    return found[0]
        return None

    def _ended(
        self,
        output: object,
        record: dict[str, Any],
        run: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun | None,
    ) -> None:
        """Tell those who need no callback that the call was answered."""
        self.span.end(output)
        self.note(record["decision_id"], None if run is None else run.run_id)

    def _outputs(self, output: object, record: dict[str, Any]) -> dict[str, Any]:
        self.record.update(record)
        return {"output": output, RECORD_KEY: record}

    def _config_under(
        self, parent: BaseCallbackManager | None, watch: BaseCallbackHandler | None
    ) -> RunnableConfig:
        config = self._config.copy()
        for key in _OWN_KEYS:
            config.pop(key, None)  # type: ignore[misc]
        # The model would give its run such an id anyway; now it is known here.
        config["run_id"] = self._inside = uuid7()
        if watch is not None:
            parent = self._manager.copy() if parent is None else parent
            parent.add_handler(watch)
        if parent is not None:
            config["callbacks"] = parent
        elif (given := self._config.get("callbacks")) is not None:
            config["callbacks"] = given
        return config


class ChainRun(_Run):
    """The run of a synchronous call.

    Parameters
    ----------
    model
        Whose run it is.
    config
        The caller's config, complete.
    """

    __slots__ = ("_run",)

    def __init__(self, model: "ModelPool", config: RunnableConfig) -> None:
        manager = _configured(CallbackManager, model, config)
        super().__init__(config, manager, model)
        self._run: CallbackManagerForChainRun | None = None

    def start(self, messages: list[BaseMessage], record: dict[str, Any] | None) -> None:
        """Open the run.

        Parameters
        ----------
        messages
            What was asked.
        record
            What was decided; ``None`` if nothing could be.
        """
        if self.heard and isinstance(self._manager, CallbackManager):
            told = self._started_with(record)
            self._run = self._manager.on_chain_start(
                None, {"messages": messages}, **told
            )

    def child(self, watch: BaseCallbackHandler | None = None) -> RunnableConfig:
        """Return the config for a call inside this run.

        Parameters
        ----------
        watch
            Another handler that shall hear of that call.

        Returns
        -------
        RunnableConfig
            The caller's, one level down.
        """
        parent = None if self._run is None else self._run.get_child()
        return self._config_under(parent, watch)

    def end(self, output: object, record: dict[str, Any]) -> None:
        """Close the run.

        Parameters
        ----------
        output
            The answer.
        record
            Its routing record.
        """
        self._ended(output, record, self._run)
        if self._run is not None:
            self._run.on_chain_end(self._outputs(output, record))

    def fail(self, error: BaseException) -> None:
        """Close the run with an error.

        Parameters
        ----------
        error
            What is raised to the caller.
        """
        self.span.fail(error)
        if self._run is not None:
            self._run.on_chain_error(error)


class AsyncChainRun(_Run):
    """The run of an asynchronous call; the same methods, to be awaited.

    Parameters
    ----------
    model
        Whose run it is.
    config
        The caller's config, complete.
    """

    __slots__ = ("_run",)

    def __init__(self, model: "ModelPool", config: RunnableConfig) -> None:
        manager = _configured(AsyncCallbackManager, model, config)
        super().__init__(config, manager, model)
        self._run: AsyncCallbackManagerForChainRun | None = None

    async def start(
        self, messages: list[BaseMessage], record: dict[str, Any] | None
    ) -> None:
        """Open the run; see `ChainRun.start`."""
        if self.heard and isinstance(self._manager, AsyncCallbackManager):
            told = self._started_with(record)
            self._run = await self._manager.on_chain_start(
                None, {"messages": messages}, **told
            )

    def child(self, watch: BaseCallbackHandler | None = None) -> RunnableConfig:
        """Return the config for a call inside this run; see `ChainRun.child`."""
        parent = None if self._run is None else self._run.get_child()
        return self._config_under(parent, watch)

    async def end(self, output: object, record: dict[str, Any]) -> None:
        """Close the run; see `ChainRun.end`."""
        self._ended(output, record, self._run)
        if self._run is not None:
            await self._run.on_chain_end(self._outputs(output, record))

    async def fail(self, error: BaseException) -> None:
        """Close the run with an error; see `ChainRun.fail`."""
        self.span.fail(error)
        if self._run is not None:
            await self._run.on_chain_error(error)


def _configured(kind: type[M], model: "ModelPool", config: RunnableConfig) -> M:
    """Return the manager of a call.

    What was set on the model reaches the LLM run too, as if it were the
    model's own.
    """
    manager = kind.configure(
        config.get("callbacks"),
        None,
        model.verbose,
        config.get("tags"),
        None,
        config.get("metadata"),
        None,
    )
    if model.callbacks:
        own = model.callbacks
        handlers = own if isinstance(own, list) else own.handlers
        for handler in handlers:
            manager.add_handler(handler)
    if model.tags:
        manager.add_tags(model.tags)
    if model.metadata:
        manager.add_metadata(model.metadata)
    return manager
