"""The candidates behind one chat model: how they are set up, and kept.

`chat_model` adds the methods that call them.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, Self

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import BaseMessage
from pydantic import Field, InstanceOf, SecretStr

from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, FeedbackKind
from mixllm_integrations.langchain.callbacks import announce_feedback
from mixllm_integrations.langchain.capabilities import (
    CandidateModel,
    common_profile,
)
from mixllm_integrations.langchain.seats import SETTINGS, Seat, Seating
from mixllm_integrations.langchain.settings import check_settings, models_of
from mixllm_integrations.langchain.trace import RUN_NAME
from mixllm_integrations.serving import Dispatcher, decision_id_of, text_tokens
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


class ModelPool(BaseChatModel):
    """What a routed chat model is made of; see `MixLLMChatModel`."""

    candidates: tuple[InstanceOf[CandidateModel], ...] = Field(exclude=True)
    router: InstanceOf[Router] = Field(exclude=True)
    store: Any = Field(default=None, exclude=True)
    willingness_to_pay: float | None = None
    query_from: Callable[[list[BaseMessage]], str] | None = Field(
        default=None, exclude=True
    )
    cooldown_seconds: float = 30.0

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
        **settings: Any,  # noqa: ANN401
    ) -> None:
        settings |= {
            "router": router,
            "store": store,
            "willingness_to_pay": willingness_to_pay,
            "query_from": query_from,
            "cooldown_seconds": cooldown_seconds,
        }
        check_settings(type(self), settings)
        wrapped = models_of(candidates)
        facts = _facts(wrapped, router)
        if router is None:
            router = router_over(facts, willingness_to_pay=willingness_to_pay)
        else:  # it may serve other models, so what it weighs is left as it is
            router_over(facts, router=router)
        super().__init__(**settings | {"candidates": wrapped, "router": router})
        if self.profile is None:
            self.profile = common_profile(wrapped)
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
        return dispatcher_over(
            self.router, cooldown_seconds=self.cooldown_seconds, store=self.store
        )

    @cached_property
    def _seating(self) -> Seating:
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

    def _forget(self, changed: Iterable[str]) -> None:
        if not _SEATED_BY.isdisjoint(changed):
            self.__dict__.pop("_seating", None)
        if not _DISPATCHED_BY.isdisjoint(changed):
            self.__dict__.pop("_dispatcher", None)

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
            return self._seating.by_name[name]
        except KeyError:
            raise UnknownCandidateError(name, self._seating.by_name) from None

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
        return self._seating.meant_by(name)

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
        return self._seating.among(self.router)

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
        if name in self._seating.by_name:
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

    def record_feedback(
        self,
        answer: object,
        reward: float,
        *,
        kind: FeedbackKind = "refined",
        source: str | None = None,
    ) -> bool:
        """Tell how good an answer was, so that the router learns from it.

        Parameters
        ----------
        answer
            The message as it was returned, a structured answer with its raw
            message, or the id of the decision.
        reward
            How good it was, in [0, 1].
        kind
            ``"refined"``: a measured quality. ``"binary"``: satisfied or not.
        source
            Who says so, for example ``"thumbs"``.

        Returns
        -------
        bool
            False if this decision had its feedback already.

        Raises
        ------
        ConfigurationError
            If no decision is found on `answer`, or the reward is not legal.
        UnknownDecisionError
            If the router does not know the decision, or not any more.
        """
        new = self._dispatcher.record_feedback(answer, reward, kind=kind, source=source)
        if new:
            announce_feedback(decision_id_of(answer), float(reward))
        return new

    async def arecord_feedback(
        self,
        answer: object,
        reward: float,
        *,
        kind: FeedbackKind = "refined",
        source: str | None = None,
    ) -> bool:
        """Do the same as `record_feedback`, on a thread of its own.

        Parameters
        ----------
        answer, reward, kind, source
            As for `record_feedback`.

        Returns
        -------
        bool
            False if this decision had its feedback already.
        """
        return await asyncio.to_thread(
            self.record_feedback, answer, reward, kind=kind, source=source
        )

    def get_num_tokens(self, text: str) -> int:
        """Return about how many tokens a text has, by the shipped tokenizer.

        Parameters
        ----------
        text
            Any text.

        Returns
        -------
        int
            An estimate: each candidate counts differently.
        """
        return text_tokens(text)

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
            "candidates": list(self._seating.by_name),
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
        yield "candidates", list(self._seating.by_name)
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
