"""What users may import, and that it says what it is."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import mixllm_integrations

PACKAGE = Path(mixllm_integrations.__file__).parent
EXPECTED = [
    "BatchPrediction",
    "BudgetExceededError",
    "Calibration",
    "Candidate",
    "CandidateModel",
    "ChatMixLLM",
    "ConfigurationError",
    "Decision",
    "Feedback",
    "LangSmithFeedback",
    "MixLLMCallbackHandler",
    "MixLLMChatModel",
    "MixLLMEmbeddings",
    "MixLLMError",
    "NoCandidateError",
    "NotFittedError",
    "Outcome",
    "Prediction",
    "Router",
    "RoutingRecord",
    "RoutingRule",
    "SentenceTransformerEncoder",
    "StateFormatError",
    "StaticEncoder",
    "UnknownCandidateError",
    "UnknownDecisionError",
    "__version__",
]


def modules() -> list[str]:
    """Names of all modules, read from the files so that nothing is imported."""
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[-1] != "__main__":
            names.append(".".join(p for p in parts if p != "__init__"))
    return names


def documented(name: str, thing: object) -> list[str]:
    """Names under `thing` that have no docstring of their own."""
    missing = [] if inspect.getdoc(thing) else [name]
    if not inspect.isclass(thing):
        return missing
    for attribute, value in vars(thing).items():
        function = getattr(value, "__func__", getattr(value, "fget", value))
        if attribute.startswith("_") or not inspect.isfunction(function):
            continue
        # An override may take its words from the class that it follows.
        if function.__module__ == thing.__module__ and not inspect.getdoc(
            getattr(thing, attribute)
        ):
            missing.append(f"{name}.{attribute}")
    return missing


def test_the_package_offers_exactly_what_is_promised() -> None:
    assert mixllm_integrations.__all__ == EXPECTED
    assert dir(mixllm_integrations) == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_promised_name_can_be_imported(name: str) -> None:
    thing = getattr(mixllm_integrations, name)
    assert thing is getattr(mixllm_integrations, name)
    if name != "__version__":
        assert thing.__module__.startswith("mixllm_integrations.")
        assert documented(name, thing) == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Rooter'"):
        _ = mixllm_integrations.Rooter


def test_the_version_is_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", mixllm_integrations.__version__)


def test_the_alias_is_the_same_class() -> None:
    assert mixllm_integrations.ChatMixLLM is mixllm_integrations.MixLLMChatModel


@pytest.mark.parametrize("name", modules())
def test_a_module_says_what_it_is_for_and_what_it_offers(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip(), "no docstring"
    offered = module.__all__
    assert len(set(offered)) == len(offered)
    assert [n for n in offered if not hasattr(module, n)] == []


@pytest.mark.parametrize("name", modules())
def test_a_module_offers_every_public_thing_it_defines(name: str) -> None:
    module = importlib.import_module(name)
    defined = [
        n
        for n, thing in vars(module).items()
        if not n.startswith("_")
        and (inspect.isclass(thing) or inspect.isfunction(thing))
        and thing.__module__ == name
    ]
    assert sorted(set(defined) - set(module.__all__)) == []


@pytest.mark.parametrize("name", modules())
def test_every_public_thing_has_a_docstring(name: str) -> None:
    module = importlib.import_module(name)
    things = {n: getattr(module, n) for n in module.__all__}
    own = {
        n: t
        for n, t in things.items()
        if (inspect.isclass(t) or inspect.isfunction(t))
        and t.__module__.startswith("mixllm_integrations")
    }
    assert [m for n, t in own.items() for m in documented(n, t)] == []
