"""The candidates behind one routed LLM: who they are, who joins and who leaves.

`llm` and its other bases add the methods that call them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self

from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.bridge.pydantic import Field, PrivateAttr, field_serializer
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import LLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.types import PydanticProgramMode
from pydantic import InstanceOf

from mixllm_integrations.core.copying import check_picklable
from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.router import Router
from mixllm_integrations.llama_index.candidates import (
    CandidateLLM,
    common_metadata,
    resolved,
)
from mixllm_integrations.llama_index.messages import QueryFrom
from mixllm_integrations.llama_index.settings import (
    candidates_of,
    check_settings,
    restored,
)
from mixllm_integrations.serving import (
    CallOptions,
    Dispatcher,
    RoutingRule,
    checked_rules,
)
from mixllm_integrations.serving.members import Members, Presence, Present, meanings
from mixllm_integrations.serving.naming import renames_of
from mixllm_integrations.serving.pool import (
    check_candidates,
    dispatcher_over,
    enrol,
    router_over,
)
from mixllm_integrations.serving.run_ids import RunIds, run_ids_of
from mixllm_integrations.store import EventStore

__all__ = ["LLMPool", "Seats"]

_ANEW = (
    "keep what was learned with llm.router.save(folder), and in the other process go "
    "on with MixLLM(candidates, router=Router.load(folder))"
)

# What the candidates' own LLMs get: `Settings` assigns it to its LLM.
_HANDED_ON = frozenset({"callback_manager", "pydantic_program_mode"})
# What the dispatcher is made of, besides the router and the store.
_DISPATCHED_BY = frozenset({"cooldown_seconds", "learn_from_store", "shared_state"})


class Seats:
    """All candidates of one LLM by the names that they have now; never changes.

    Parameters
    ----------
    candidates
        The candidates, each of another name.

    Attributes
    ----------
    candidates
        As they were passed: another object after each change of them.
    by_name
        From the candidate's name to the candidate.
    presence
        Tells whom of them the router has.
    meant
        What each name that a caller may use stands for.
    """

    __slots__ = ("by_name", "candidates", "meant", "presence")

    def __init__(self, candidates: tuple[CandidateLLM, ...]) -> None:
        self.candidates = candidates
        self.by_name = {one.known_name(): one for one in candidates}
        self.presence = Presence(self.by_name)
        self.meant = meanings(
            (name, one.llm.metadata.model_name) for name, one in self.by_name.items()
        )


class LLMPool(Members, FunctionCallingLLM):
    """What a routed LLM is made of; see `MixLLM`."""

    candidates: tuple[InstanceOf[CandidateLLM], ...] = Field(
        description="What the router chooses from.", repr=False
    )
    willingness_to_pay: float | None = None
    query_from: QueryFrom | None = Field(default=None, exclude=True, repr=False)
    cooldown_seconds: float = 30.0
    give_up_after_seconds: float = 0.0
    timeout: float | None = None
    max_retries: int | None = None
    rules: tuple[InstanceOf[RoutingRule], ...] = Field(
        default=(), exclude=True, repr=False
    )
    shadow: str | None = None
    learn_from_store: bool = True
    shared_state: Any = Field(default=None, exclude=True, repr=False)
    _router: Router = PrivateAttr()
    _dispatcher: Dispatcher = PrivateAttr()
    _store: EventStore | str | None = PrivateAttr(default=None)

    def __init__(
        self,
        *,
        candidates: Sequence[LLM | CandidateLLM],
        router: Router | None = None,
        store: EventStore | str | None = None,
        rules: Sequence[RoutingRule] | RoutingRule = (),
        callback_manager: CallbackManager | None = None,
        **settings: Any,  # noqa: ANN401 - the fields of this class
    ) -> None:
        check_settings(type(self), settings, router=router)
        known = () if router is None else router.candidates
        entries = tuple(resolved(one, known) for one in candidates_of(candidates))
        facts = [entry.candidate for entry in entries]
        settings["rules"] = checked_rules(rules, [fact.name for fact in facts])
        if router is None:
            worth = settings.get("willingness_to_pay")
            router = router_over(facts, willingness_to_pay=worth)
        else:  # it may serve other models, so what it weighs is left as it is
            renames_of(router).taken(fact.name for fact in facts)
            router_over(facts, router=router)
        super().__init__(candidates=entries, **settings)
        self._router, self._store = router, store
        self._dispatch()
        if self.shadow is not None and not self.meant_by(self.shadow):
            raise self.unknown(self.shadow)
        if callback_manager is not None:
            self.callback_manager = callback_manager
        self._hand_on()

    @property
    def metadata(self) -> LLMMetadata:
        """What holds whoever answers: minima over the candidates."""
        return common_metadata(self.candidates)

    @property
    def router(self) -> Router:
        """Who decides, and learns; its weights may be set at any time."""
        return self._router

    @property
    def dispatcher(self) -> Dispatcher:
        """Starts the calls and keeps failed candidates out for a while."""
        return self._dispatcher

    @property
    def run_ids(self) -> RunIds:
        """Which decision each of the latest spans and events led to."""
        return run_ids_of(self._dispatcher)

    @property
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
    def seats(self) -> Seats:
        """The candidates under the names that they have now."""
        if self._followed is not self._renames.log:
            self._follow()
        held: Seats | None = self.__dict__.get("_seats")
        if held is None or held.candidates is not self.candidates:
            held = self.__dict__["_seats"] = Seats(self.candidates)
        return held

    def seat(self, name: str) -> CandidateLLM:
        """Return a candidate.

        Parameters
        ----------
        name
            The candidate's name, or the one that it had when a call began.

        Returns
        -------
        CandidateLLM
            The candidate.

        Raises
        ------
        UnknownCandidateError
            If there is none of that name.
        """
        found = self.seats.by_name.get(name)
        if found is None:
            with self._renames.lock:  # a rename may be under way
                found = self.seats.by_name.get(self._renames.current(name))
        if found is None:
            raise self.unknown(name)
        return found

    def names(self) -> tuple[str, ...]:
        """Return the names of the candidates, as they were passed."""
        return tuple(self.seats.by_name)

    def meant_by(self, name: object) -> tuple[str, ...]:
        """Return the candidates that a name stands for.

        Parameters
        ----------
        name
            A candidate's name, or what a provider calls its model.

        Returns
        -------
        tuple of str
            Names of candidates; several if they share a model, none if the name
            is not known here.
        """
        return self.seats.meant.get(name, ()) if isinstance(name, str) else ()

    def add_candidate(self, candidate: LLM | CandidateLLM) -> None:
        """Let another LLM compete from now on.

        Parameters
        ----------
        candidate
            An LLM, or one with facts about it.

        Raises
        ------
        ConfigurationError
            If its name is taken, or its price is unknown.
        """
        (given,) = candidates_of([candidate])
        entry = resolved(given, self.router.candidates)
        with self._renames.lock:
            self._check_free(entry.known_name())
            self.candidates = (*self.candidates, entry)

    def to_payload(self) -> dict[str, Any]:
        """Return what traces may show: metadata and the candidates' names."""
        return {**super().to_payload(), "candidates": list(self.seats.by_name)}

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:  # noqa: ANN401
        """Make again what `to_dict` has written.

        Parameters
        ----------
        data
            Settings and facts about the candidates; no LLM, as those hold keys.
        **kwargs
            ``candidates``: the LLMs, bare or as `CandidateLLM`. One with the name of
            a former candidate, or in its place, has what was known of it.
            Others replace the settings.

        Returns
        -------
        MixLLM
            With a router of its own, unless one is passed.

        Raises
        ------
        ConfigurationError
            If no LLMs are passed.
        """
        return super().from_dict(restored(data, kwargs))

    def _presence(self) -> Present:
        return self.seats.presence.of(self.router)

    def _dispatch(self) -> None:
        self._dispatcher = dispatcher_over(
            self._router,
            cooldown_seconds=self.cooldown_seconds,
            store=self._store,
            learn_from_store=self.learn_from_store,
            shared_state=self.shared_state,
        )
        self._tell_prices()

    def _tell_prices(self) -> None:
        """Tell what each candidate's cache of prompts changes."""
        for known in self.router.candidates:
            entry = self.seats.by_name.get(known.name)
            if entry is not None:
                price = entry.cache_price(known.input_cost_per_million_tokens)
                self._dispatcher.know_cache(known.name, price)

    def _hold(self, update: Mapping[str, Any]) -> None:
        """Change settings that are known to be right."""
        for name, value in update.items():
            super().__setattr__(name, value)
        if not _DISPATCHED_BY.isdisjoint(update):
            self._dispatch()
        if "candidates" in update:
            _ = self._followed  # names that are passed are those of today
            self._tell_prices()
            self._hand_on()

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401
        """Change a setting; it holds from the next call on."""
        if name not in type(self).model_fields:
            super().__setattr__(name, value)
            return
        check_settings(type(self), {name: value})
        if name == "rules":
            value = checked_rules(value, self.names())
        elif name == "shadow" and value is not None and not self.meant_by(value):
            raise self.unknown(value)
        elif name == "candidates":
            value = self._enrolled(value)
        self._hold({name: value})
        if name in _HANDED_ON:
            self._hand_on(name)

    def _hand_on(self, assigned: str = "") -> None:
        for name in _HANDED_ON & self.model_fields_set:
            value = getattr(self, name)
            # `to_dict` names the default too, whoever set it.
            if name == assigned or value != PydanticProgramMode.DEFAULT:
                for entry in self.candidates:
                    setattr(entry.llm, name, value)

    def _enrolled(
        self, given: Sequence[LLM | CandidateLLM]
    ) -> tuple[CandidateLLM, ...]:
        self._follow()
        known = self.router.candidates
        entries = tuple(resolved(one, known) for one in candidates_of(given))
        facts = [entry.candidate for entry in entries]
        check_candidates(facts)
        renames_of(self.router).taken(entry.known_name() for entry in entries)
        before = {id(entry.llm) for entry in self.candidates}
        both = zip(entries, facts, strict=True)
        enrol(self.router, [fact for e, fact in both if id(e.llm) not in before])
        return entries

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return a copy that shares the LLMs and what the router learns."""
        return self.model_copy()

    def __getstate__(self) -> dict[str, Any]:
        """Return what it was made of; a pickle makes one anew, with its own router.

        The candidates' LLMs go as they pickle themselves, with their keys; the
        store by its URL. Callbacks stay in this process.

        Raises
        ------
        ConfigurationError
            If the store is an opened one, or a candidate cannot be pickled.
        """
        if not isinstance(self._store, str | None):
            raise ConfigurationError(
                f"a MixLLM with an opened store ({type(self._store).__name__}) cannot "
                "be pickled: pass the store's URL, which each process opens for itself"
            )
        for entry in self.candidates:
            check_picklable(entry, f"candidate {entry.name!r}", _ANEW)
        given = self.model_fields_set - {"callback_manager"}
        return {name: getattr(self, name) for name in given} | {
            "candidates": self.candidates,
            "router": self.router,
            "store": self._store,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make it as it was made first."""
        self.__init__(**state)  # type: ignore[misc]

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield "candidates", list(self.seats.by_name)

    @field_serializer("candidates")
    def _without_llms(
        self, candidates: tuple[CandidateLLM, ...]
    ) -> list[dict[str, Any]]:
        """Return the candidates without their LLMs, which hold keys."""
        return [asdict(entry.candidate) for entry in candidates]
