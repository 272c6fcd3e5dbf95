"""The candidates behind one chat model: how they are set up, and kept.

`chat_model` adds the methods that call them.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from typing import Any, Self

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import BaseMessage
from langchain_core.runnables import ConfigurableFieldSpec
from pydantic import Field, InstanceOf, SecretStr

from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.langchain.calls.control import config_specs
from mixllm_integrations.langchain.candidates.seats import SETTINGS, Seat, Seating
from mixllm_integrations.langchain.capabilities import (
    CandidateModel,
    common_profile,
)
from mixllm_integrations.langchain.copying import PortableChatModel
from mixllm_integrations.langchain.settings import check_settings, models_of
from mixllm_integrations.langchain.tracing.run_ids import RunIds, run_ids_of
from mixllm_integrations.langchain.tracing.runs import RUN_NAME
from mixllm_integrations.serving import (
    CallOptions,
    Dispatcher,
    RoutingRule,
    checked_rules,
)
from mixllm_integrations.serving.pool import (
    check_candidates,
    dispatcher_over,
    enrol,
    router_over,
)

__all__ = ["ModelPool"]

# What is worked out once, and from which settings.
_SEATED_BY = frozenset({*SETTINGS, "timeout", "candidates"})
_DISPATCHED_BY = frozenset({"router", "store", "cooldown_seconds"})
_USUAL_BY = frozenset({"willingness_to_pay", "max_retries", "shadow"})


class ModelPool(PortableChatModel):
    """What a routed chat model is made of; see `MixLLMChatModel`."""

    candidates: tuple[InstanceOf[CandidateModel], ...] = Field(exclude=True)
    router: InstanceOf[Router] = Field(exclude=True)
    store: Any = Field(default=None, exclude=True)
    willingness_to_pay: float | None = None
    query_from: Callable[[list[BaseMessage]], str] | None = Field(
        default=None, exclude=True
    )
    cooldown_seconds: float = 30.0
    rules: tuple[InstanceOf[RoutingRule], ...] = Field(default=(), exclude=True)
    shadow: str | None = None

    # What every chat model takes.
    temperature: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    streaming: bool | None = None
    timeout: float | None = None
    max_retries: int | None = None
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False)

    def __init__(
        self,
        *,
        candidates: Iterable[BaseChatModel | CandidateModel],
        router: Router | None = None,
        store: Any = None,  # noqa: ANN401 - a URL or any EventStore
        willingness_to_pay: float | None = None,
        query_from: Callable[[list[BaseMessage]], str] | None = None,
        cooldown_seconds: float = 30.0,
        rules: Iterable[RoutingRule] | RoutingRule = (),
        shadow: str | None = None,
        **settings: Any,  # noqa: ANN401
    ) -> None:
        settings |= {
            "rules": rules,
            "shadow": shadow,
            "router": router,
            "store": store,
            "willingness_to_pay": willingness_to_pay,
            "query_from": query_from,
            "cooldown_seconds": cooldown_seconds,
        }
        check_settings(type(self), settings)
        wrapped = models_of(candidates)
        facts = _facts(wrapped, router)
        settings["rules"] = checked_rules(rules, [fact.name for fact in facts])
        if router is None:
            router = router_over(facts, willingness_to_pay=willingness_to_pay)
        else:  # it may serve other models, so what it weighs is left as it is
            router_over(facts, router=router)
        super().__init__(**settings | {"candidates": wrapped, "router": router})
        if self.profile is None:
            self.profile = common_profile(wrapped)
        if shadow is not None and not self.meant_by(shadow):
            raise UnknownCandidateError(shadow, self.names())
        _ = self._dispatcher  # opens the store, or says why it cannot

    @property
    def dispatcher(self) -> Dispatcher:
        """Starts the calls and keeps failed candidates out for a while."""
        return self._dispatcher

    # Cached properties are read at the speed of attributes, and copies of the
    # model share them; pydantic's private attributes are neither. `_forget`
    # drops what a new setting makes untrue.
    @cached_property
    def _dispatcher(self) -> Dispatcher:
        dispatcher = dispatcher_over(
            self.router, cooldown_seconds=self.cooldown_seconds, store=self.store
        )
        self._tell_prices(dispatcher)
        return dispatcher

    def _tell_prices(self, dispatcher: Dispatcher) -> None:
        """Tell what each candidate's cache of prompts changes."""
        for known in self.router.candidates:
            if (seat := self.seating.by_name.get(known.name)) is not None:
                price = seat.candidate.cache_price(known.input_cost_per_million_tokens)
                dispatcher.know_cache(known.name, price)

    @cached_property
    def run_ids(self) -> RunIds:
        """Which decision each of the latest runs led to."""
        return run_ids_of(self._dispatcher)

    @cached_property
    def usual_options(self) -> CallOptions:
        """What every call asks that does not say otherwise."""
        return CallOptions(
            max_failovers=self.max_retries,
            willingness_to_pay=self.willingness_to_pay,
            shadow=self.shadow and self.meant_by(self.shadow)[0],
        )

    @property
    def decides_slowly(self) -> bool:
        """Whether a decision may take longer than an event loop should wait."""
        return (
            bool(self.rules)
            or self.query_from is not None
            or not isinstance(self.router.encoder, StaticEncoder)
        )

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """What ``config["configurable"]`` may say of a call."""
        return config_specs()

    @cached_property
    def seating(self) -> Seating:
        """The candidates as they are called."""
        return Seating(self.candidates, self._settings(), self.timeout)

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401
        """Change a setting; it holds from the next call on."""
        update = self._checked({name: value})
        for changed, new in update.items():
            super().__setattr__(changed, new)
        self._forget(update)

    def model_copy(
        self, *, update: Mapping[str, Any] | None = None, deep: bool = False
    ) -> Self:
        """Return a copy that shares the models and what the router learns.

        Parameters
        ----------
        update
            Settings that the copy has instead; they are checked.
        deep
            Makes no difference.

        Returns
        -------
        Self
            The copy.

        Raises
        ------
        ConfigurationError
            If a setting is unknown or cannot be used.
        """
        checked = self._checked(update or {})
        copied = super().model_copy(update=checked, deep=deep)
        copied._forget(checked)  # noqa: SLF001 - its own
        return copied

    def _checked(self, update: Mapping[str, Any]) -> dict[str, Any]:
        """Return new settings with what follows from them."""
        check_settings(type(self), update)
        checked = dict(update)
        if "rules" in checked:
            checked["rules"] = checked_rules(checked["rules"], self.names())
        if checked.keys().isdisjoint(("candidates", "router")):
            return checked
        wrapped = models_of(checked.get("candidates", self.candidates))
        router = checked.get("router", self.router)
        facts = _facts(wrapped, router)
        check_candidates(facts)
        before = () if router is not self.router else self.candidates
        enrol(
            router, [f for f, c in zip(facts, wrapped, strict=True) if c not in before]
        )
        checked["candidates"] = wrapped
        if self.profile == common_profile(self.candidates):
            checked.setdefault("profile", common_profile(wrapped))
        return checked

    def _forget(self, changed: Collection[str]) -> None:
        if not _SEATED_BY.isdisjoint(changed):
            self.__dict__.pop("seating", None)
        if not _DISPATCHED_BY.isdisjoint(changed):
            self.__dict__.pop("_dispatcher", None)
            self.__dict__.pop("run_ids", None)
        elif "candidates" in changed and "_dispatcher" in self.__dict__:
            self._tell_prices(self._dispatcher)
        if not _USUAL_BY.isdisjoint(changed):
            self.__dict__.pop("usual_options", None)

    def seat(self, name: str) -> Seat:
        """Return a candidate as it is called.

        Parameters
        ----------
        name
            The candidate's name.

        Returns
        -------
        Seat
            Its chat model, and what each call is given.

        Raises
        ------
        UnknownCandidateError
            If there is none of that name.
        """
        try:
            return self.seating.by_name[name]
        except KeyError:
            raise UnknownCandidateError(name, self.seating.by_name) from None

    def names(self) -> tuple[str, ...]:
        """Return the names of the candidates, as they were passed."""
        return tuple(self.seating.by_name)

    def meant_by(self, name: object) -> tuple[str, ...]:
        """Return the candidates that a name stands for.

        Parameters
        ----------
        name
            A candidate's name, or what a provider calls its model.

        Returns
        -------
        tuple of str
            Names of candidates; none if the name is not known here.
        """
        return self.seating.meant_by(name)

    def among(self) -> tuple[str, ...] | None:
        """Return who may be chosen.

        Returns
        -------
        tuple of str or None
            ``None``: every candidate of the router, as long as it has no other
            ones, which it may have been given for another model.

        Raises
        ------
        NoCandidateError
            If the router has none of this model's candidates any more.
        """
        return self.seating.among(self.router)

    def add_candidate(self, candidate: BaseChatModel | CandidateModel) -> None:
        """Let another model compete from now on.

        Parameters
        ----------
        candidate
            A chat model, or one with facts about it.

        Raises
        ------
        ConfigurationError
            If its name is taken, or its name or price is unknown.
        """
        (wrapped,) = models_of([candidate])
        name = wrapped.known_name()
        if name in self.seating.by_name:
            raise ConfigurationError(f"a candidate called {name!r} is there already")
        self.candidates = (*self.candidates, wrapped)

    def remove_candidate(self, name: str) -> None:
        """Let a model compete no longer; what was learned of it is kept.

        It leaves the router, so other models that share the router do not
        choose it either.

        Parameters
        ----------
        name
            The candidate's name.

        Raises
        ------
        UnknownCandidateError
            If there is none of that name.
        """
        self.seat(name)
        if any(known.name == name for known in self.router.candidates):
            self.router.remove_candidate(name)
        kept = tuple(c for c in self.candidates if c.known_name() != name)
        if kept and self.profile == common_profile(self.candidates):
            self.profile = common_profile(kept)
        super().__setattr__("candidates", kept)
        self._forget(["candidates"])

    def _settings(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in SETTINGS}
        return {
            name: value
            for name, value in given.items()
            if value is not None and value is not False
        }

    @property
    def _llm_type(self) -> str:
        return "mixllm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {
            "candidates": list(self.seating.by_name),
            "pool": id(self.router),  # two routers never share a cached answer
            **{k: v for k, v in self._settings().items() if k != "stop"},
        }

    def _get_ls_params(
        self,
        stop: list[str] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "mixllm"
        params.setdefault("ls_model_name", RUN_NAME)
        return params

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show names only: models hold keys."""
        own = self.willingness_to_pay
        yield "candidates", list(self.seating.by_name)
        yield (
            "willingness_to_pay",
            self.router.willingness_to_pay if own is None else own,
        )

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return a copy that shares the models and what the router learns."""
        return self.model_copy()


def _facts(
    candidates: Iterable[CandidateModel], router: Router | None
) -> list[Candidate]:
    """Return what the router sees of the candidates."""
    known = {} if router is None else {c.name: c for c in router.candidates}
    return [c.candidate(known.get(c.known_name())) for c in candidates]
