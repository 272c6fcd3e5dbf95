"""A routed chat model's settings, and what is worked out from them.

Its dispatcher, and a seat for each candidate; `pool` says who joins and leaves.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from typing import Any, Self

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.runnables import ConfigurableFieldSpec
from pydantic import Field, InstanceOf, SecretStr

from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.langchain.calls.control import config_specs
from mixllm_integrations.langchain.candidates.seats import SETTINGS, Seating
from mixllm_integrations.langchain.capabilities import (
    CandidateModel,
    common_profile,
)
from mixllm_integrations.langchain.copying import PortableChatModel
from mixllm_integrations.langchain.settings import check_settings, models_of
from mixllm_integrations.serving import (
    CallOptions,
    Dispatcher,
    RoutingRule,
    checked_rules,
)
from mixllm_integrations.serving.members import Members, Present
from mixllm_integrations.serving.naming import renames_of
from mixllm_integrations.serving.pool import (
    check_candidates,
    dispatcher_over,
    enrol,
    router_over,
)
from mixllm_integrations.serving.run_ids import RunIds, run_ids_of

__all__ = ["SeatedModel"]

# What is worked out once, and from which settings.
_SEATED_BY = frozenset({*SETTINGS, "timeout", "candidates"})
_DISPATCHED_BY = frozenset(
    {"router", "store", "learn_from_store", "shared_state", "cooldown_seconds"}
)
_USUAL_BY = frozenset(
    {"willingness_to_pay", "max_retries", "give_up_after_seconds", "shadow"}
)


class SeatedModel(Members, PortableChatModel):
    """What a routed chat model is made of; see `MixLLMChatModel`."""

    candidates: tuple[InstanceOf[CandidateModel], ...] = Field(exclude=True)
    router: InstanceOf[Router] = Field(exclude=True)
    store: Any = Field(default=None, exclude=True)
    learn_from_store: bool = True
    shared_state: Any = Field(default=None, exclude=True)
    willingness_to_pay: float | None = None
    query_from: Callable[[list[BaseMessage]], str] | None = Field(
        default=None, exclude=True
    )
    cooldown_seconds: float = 30.0
    give_up_after_seconds: float = 0.0
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
        learn_from_store: bool = True,
        shared_state: Any = None,  # noqa: ANN401 - a URL or any SharedState
        willingness_to_pay: float | None = None,
        query_from: Callable[[list[BaseMessage]], str] | None = None,
        cooldown_seconds: float = 30.0,
        give_up_after_seconds: float = 0.0,
        rules: Iterable[RoutingRule] | RoutingRule = (),
        shadow: str | None = None,
        **settings: Any,  # noqa: ANN401
    ) -> None:
        settings |= {
            "rules": rules,
            "shadow": shadow,
            "router": router,
            "store": store,
            "learn_from_store": learn_from_store,
            "shared_state": shared_state,
            "willingness_to_pay": willingness_to_pay,
            "query_from": query_from,
            "cooldown_seconds": cooldown_seconds,
            "give_up_after_seconds": give_up_after_seconds,
        }
        check_settings(type(self), settings)
        wrapped = models_of(candidates)
        facts = _facts(wrapped, router)
        settings["rules"] = checked_rules(rules, [fact.name for fact in facts])
        if router is None:
            router = router_over(facts, willingness_to_pay=willingness_to_pay)
        else:  # it may serve other models, so what it weighs is left as it is
            renames_of(router).taken(fact.name for fact in facts)
            router_over(facts, router=router)
        super().__init__(**settings | {"candidates": wrapped, "router": router})
        if self.profile is None:
            self.profile = common_profile(wrapped)
        if shadow is not None and not self.meant_by(shadow):
            raise self.unknown(shadow)
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
            self.router,
            cooldown_seconds=self.cooldown_seconds,
            store=self.store,
            learn_from_store=self.learn_from_store,
            shared_state=self.shared_state,
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
            give_up_after_seconds=self.give_up_after_seconds,
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

    @property
    def seating(self) -> Seating:
        """The candidates as they are called, under the names that they have now."""
        if self._followed is not self._renames.log:
            self._follow()
        held: Seating | None = self.__dict__.get("_seated")
        if held is None or held.candidates is not self.candidates:
            held = Seating(self.candidates, self._settings(), self.timeout)
            self.__dict__["_seated"] = held
        return held

    def _presence(self) -> Present:
        return self.seating.present(self.router)

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401
        """Change a setting; it holds from the next call on."""
        self._hold(self._checked({name: value}))

    def _hold(self, update: Mapping[str, Any]) -> None:
        """Change settings that are known to be right."""
        for name, value in update.items():
            super().__setattr__(name, value)
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
        with self._renames.lock:
            checked = self._checked(update or {})
            copied = super().model_copy(update=checked, deep=deep)
            copied._forget(checked)  # noqa: SLF001 - its own
        return copied

    def _checked(self, update: Mapping[str, Any]) -> dict[str, Any]:
        """Return new settings with what follows from them."""
        check_settings(type(self), update)
        self._follow()
        checked = dict(update)
        if "rules" in checked:
            checked["rules"] = checked_rules(checked["rules"], self.names())
        if checked.keys().isdisjoint(("candidates", "router")):
            return checked
        wrapped = models_of(checked.get("candidates", self.candidates))
        router = checked.get("router", self.router)
        facts = _facts(wrapped, router)
        check_candidates(facts)
        renames_of(router).taken(fact.name for fact in facts)
        before = () if router is not self.router else self.candidates
        enrol(
            router, [f for f, c in zip(facts, wrapped, strict=True) if c not in before]
        )
        checked["candidates"] = wrapped
        if self.profile == common_profile(self.candidates):
            checked.setdefault("profile", common_profile(wrapped))
        return checked

    def _forget(self, changed: Collection[str]) -> None:
        stale = [] if _SEATED_BY.isdisjoint(changed) else ["_seated"]
        if not _DISPATCHED_BY.isdisjoint(changed):
            stale += ["_dispatcher", "run_ids"]
        if "router" in changed:
            stale += ["_renames", "_followed"]
        if not _USUAL_BY.isdisjoint(changed):
            stale.append("usual_options")
        for name in stale:
            self.__dict__.pop(name, None)
        _ = self._followed  # names that are passed are those of today
        dispatcher: Dispatcher | None = self.__dict__.get("_dispatcher")
        if dispatcher is not None and "candidates" in changed:
            self._tell_prices(dispatcher)

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

    def _settings(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in SETTINGS}
        return {
            name: value
            for name, value in given.items()
            if value is not None and value is not False
        }

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return a copy that shares the models and what the router learns."""
        return self.model_copy()


def _facts(
    candidates: Iterable[CandidateModel], router: Router | None
) -> list[Candidate]:
    """Return what the router sees of the candidates."""
    known = {} if router is None else {c.name: c for c in router.candidates}
    return [c.candidate(known.get(c.known_name())) for c in candidates]
