"""The candidates behind one chat model: who they are, who joins and who leaves.

`chat_model` adds the methods that call them.
"""

from collections.abc import Iterable
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams

from mixllm_integrations.core.errors import ConfigurationError, NoCandidateError
from mixllm_integrations.langchain.candidates.seats import Seat
from mixllm_integrations.langchain.capabilities import (
    CandidateModel,
    common_profile,
)
from mixllm_integrations.langchain.seated import SeatedModel
from mixllm_integrations.langchain.settings import models_of
from mixllm_integrations.langchain.tracing.runs import RUN_NAME
from mixllm_integrations.serving.naming import gone

__all__ = ["ModelPool"]


class ModelPool(SeatedModel):
    """A routed chat model's candidates, which come, go and change their names."""

    def seat(self, name: str) -> Seat:
        """Return a candidate as it is called.

        Parameters
        ----------
        name
            The candidate's name, or the one that it had when a call began.

        Returns
        -------
        Seat
            Its chat model, and what each call is given.

        Raises
        ------
        UnknownCandidateError
            If there is none of that name.
        """
        found = self.seating.by_name.get(name)
        if found is None:
            with self._renames.lock:  # a rename may be under way
                found = self.seating.by_name.get(self._renames.current(name))
        if found is None:
            raise self.unknown(name)
        return found

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
        among, all_here = self.seating.present(self.router)
        if all_here and not self._renames.missing:
            return among
        with self._renames.lock:  # a rename may be under way
            among, _ = self.seating.present(self.router)
            self._renames.look_for(self.names())
        if among == ():
            why = gone(self._in_router())
            raise NoCandidateError(dict.fromkeys(self.names(), why))
        return among

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
        with self._renames.lock:
            self._check_free(wrapped.known_name())
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
        with self._renames.lock:
            self._check_known(name)
            if name in self._in_router():
                self.router.remove_candidate(name)
            kept = tuple(c for c in self.candidates if c.known_name() != name)
            if kept and self.profile == common_profile(self.candidates):
                self.profile = common_profile(kept)
            self._hold({"candidates": kept})

    def rename_candidate(self, old: str, new: str) -> None:
        """Let a model go on under another name, with all that is known of it.

        It gets that name in the router as well, in the rules that name it, in
        sessions, and in other models that share the router. Calls under way end
        as they began, and answers given under the old name take feedback.

        Parameters
        ----------
        old
            The candidate's name.
        new
            Its name from now on. If it was renamed in the router already, with
            `Router.rename_candidate`, this model follows.

        Raises
        ------
        UnknownCandidateError
            If there is none of the old name.
        ConfigurationError
            If the new one is taken, here or in the router, or is no name.
        """
        with self._renames.lock:
            self._check_known(old)
            self._check_free(new)
            self._renames.rename(old, new)
            self._follow()

    def _check_known(self, name: str) -> None:
        if name not in self.names():
            raise self.unknown(name)

    def _check_free(self, name: str) -> None:
        if name in self.names():
            raise ConfigurationError(f"a candidate called {name!r} is there already")

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
