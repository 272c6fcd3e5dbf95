"""The candidates behind one chat model: who they are, who joins and who leaves.

`chat_model` adds the methods that call them.
"""

from collections.abc import Iterable
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams

from mixllm_integrations.langchain.candidates.seats import Seat
from mixllm_integrations.langchain.capabilities import (
    CandidateModel,
    common_profile,
)
from mixllm_integrations.langchain.seated import SeatedModel
from mixllm_integrations.langchain.settings import models_of
from mixllm_integrations.langchain.tracing.runs import RUN_NAME

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

    def _keep(self, kept: tuple[Any, ...]) -> None:
        if kept and self.profile == common_profile(self.candidates):
            self.profile = common_profile(kept)
        super()._keep(kept)

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
