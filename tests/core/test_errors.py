import copy
import inspect
import pickle

import pytest

from mixllm_integrations.core import errors
from mixllm_integrations.core.errors import (
    BudgetExceededError,
    ConfigurationError,
    MixLLMError,
    NoCandidateError,
    NotFittedError,
    StateFormatError,
    UnknownCandidateError,
    UnknownDecisionError,
)

TREE = {
    ConfigurationError: ValueError,
    NoCandidateError: Exception,
    BudgetExceededError: NoCandidateError,
    UnknownCandidateError: LookupError,
    UnknownDecisionError: LookupError,
    StateFormatError: ValueError,
    NotFittedError: Exception,
}


def test_every_error_of_the_module_is_in_the_tree_and_public():
    here = {
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert here == {MixLLMError, *TREE}
    assert {e.__name__ for e in here} == set(errors.__all__)


@pytest.mark.parametrize(("error", "builtin"), TREE.items())
def test_an_error_is_ours_and_the_builtin_one(error, builtin):
    assert issubclass(error, MixLLMError)
    assert issubclass(error, builtin)


def test_an_unknown_candidate_is_named_together_with_those_there_are():
    error = UnknownCandidateError("gpt-5", ("small", "large"))
    assert (error.name, error.known) == ("gpt-5", ("small", "large"))
    assert str(error) == "unknown candidate 'gpt-5'; the router has: 'small', 'large'"
    assert "the router has: none" in str(UnknownCandidateError("gpt-5"))


def test_an_unknown_decision_says_why_it_may_be_unknown():
    error = UnknownDecisionError("abc")
    assert error.decision_id == "abc"
    for word in ("'abc'", "decision_max_age_seconds", "crowded out"):
        assert word in str(error)


def test_no_candidate_says_which_limit_removed_whom():
    reasons = {"small": "has no tools", "large": "would cost about 2 USD"}
    error = NoCandidateError(reasons)
    assert error.excluded == reasons
    assert "'small': has no tools; 'large': would cost about 2 USD" in str(error)
    reasons.clear()
    assert len(error.excluded) == 2


def test_no_candidate_at_all_says_to_pass_one():
    assert NoCandidateError().excluded == {}
    assert "pass at least one" in str(NoCandidateError())


def test_a_lookup_error_is_shown_as_text_not_as_a_quoted_key():
    assert not str(UnknownCandidateError("x")).startswith(('"', "'"))


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("a bad value"),
        NoCandidateError({"small": "has no tools"}),
        NoCandidateError(),
        UnknownCandidateError("gpt-5", ("small", "large")),
        UnknownDecisionError("abc"),
        StateFormatError("damaged"),
        NotFittedError("call fit first"),
    ],
)
def test_an_error_comes_out_of_another_process_as_it_was(error):
    error.add_note("on worker 3")
    for copied in (copy.copy, lambda e: pickle.loads(pickle.dumps(e))):  # noqa: S301
        other = copied(error)
        assert (type(other), str(other)) == (type(error), str(error))
        assert vars(other) == vars(error)
