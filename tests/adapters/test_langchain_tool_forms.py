"""Choices of tools in every form, and tools that only one provider has."""

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool

from mixllm_integrations.core.errors import NoCandidateError
from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.langchain.binding import ToolBinding
from mixllm_integrations.langchain.candidates.needs import Abilities
from mixllm_integrations.testing import ScriptedChatModel


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


OPENAI = {"type": "function", "function": {"name": "add"}}
RESPONSES = {"type": "function", "name": "add"}
ANTHROPIC = {"type": "tool", "name": "add"}
ALONE = {"type": "tool", "name": "add", "disable_parallel_tool_use": True}

# What is given; what OpenAI's interface is sent; what Anthropic's is sent.
CHOICES = [
    ("auto", "auto", {"type": "auto"}),
    ("any", "required", {"type": "any"}),
    ("required", "required", {"type": "any"}),
    (True, "required", {"type": "any"}),
    ({"type": "any"}, "required", {"type": "any"}),
    ({"type": "auto"}, "auto", {"type": "auto"}),
    ("none", "none", {"type": "none"}),
    ({"type": "none"}, "none", {"type": "none"}),
    ("add", OPENAI, ANTHROPIC),
    (OPENAI, OPENAI, ANTHROPIC),
    (RESPONSES, OPENAI, ANTHROPIC),
    (ANTHROPIC, OPENAI, ANTHROPIC),
    (ALONE, ALONE, ALONE),
    (False, None, None),
    (None, None, None),
]


@pytest.fixture(scope="module")
def clients():
    """Return a client of OpenAI and one of Anthropic; neither calls anybody."""
    openai = pytest.importorskip("langchain_openai")
    anthropic = pytest.importorskip("langchain_anthropic")
    return {
        "openai": openai.ChatOpenAI(model="gpt-4o-mini", api_key="sk-none"),
        "anthropic": anthropic.ChatAnthropic(
            model="claude-haiku-4-5", api_key="sk-none"
        ),
    }


def priced(name, model, **facts):
    return CandidateModel(
        model=model,
        name=name,
        input_cost_per_million_tokens=1,
        output_cost_per_million_tokens=1,
        **facts,
    )


class TestChoices:
    """One choice, put to each candidate so that it understands."""

    @pytest.mark.parametrize(("given", "openai", "anthropic"), CHOICES)
    def test_a_choice_means_the_same_whoever_answers(
        self, clients, given, openai, anthropic
    ):
        binding = ToolBinding([add], given, {})
        for name, sent in (("openai", openai), ("anthropic", anthropic)):
            bound = binding.on(name, clients[name])
            assert bound.kwargs.get("tool_choice") == sent

    @pytest.mark.parametrize("given", [choice for choice, _, _ in CHOICES])
    def test_other_providers_are_given_it_as_it_is(self, given):
        bound = ToolBinding([add], given, {}).on("x", ScriptedChatModel())
        assert bound.kwargs["tool_choice"] == given

    def test_that_calls_be_made_one_by_one_is_said_to_each(self, clients):
        binding = ToolBinding([add], "any", {"parallel_tool_calls": False})
        openai = binding.on("openai", clients["openai"]).kwargs
        anthropic = binding.on("anthropic", clients["anthropic"]).kwargs
        assert openai["parallel_tool_calls"] is False
        assert anthropic["tool_choice"]["disable_parallel_tool_use"] is True

    def test_strict_tools_are_so_for_each(self, clients):
        binding = ToolBinding([add], None, {"strict": True})
        openai = binding.on("openai", clients["openai"]).kwargs["tools"]
        anthropic = binding.on("anthropic", clients["anthropic"]).kwargs["tools"]
        assert openai[0]["function"]["strict"] is True
        assert anthropic[0]["strict"] is True

    def test_who_cannot_be_forced_is_not(self, pool):
        free = {"facts": {"profile": {"tool_choice": False}}}
        model = pool(best=free)
        for choice, who in (("any", "second"), ("auto", "best"), (None, "best")):
            answer = model.bind_tools([add], tool_choice=choice).invoke("2 and 3")
            assert answer.response_metadata["mixllm"]["candidate"] == who
        with pytest.raises(NoCandidateError, match=r"cannot be forced.*tool_choice"):
            pool(best=free, second=free).bind_tools([add], tool_choice="add").invoke(
                "q"
            )


OWN_TOOLS = [
    ({"type": "web_search"}, "openai"),
    ({"type": "web_search_preview_2025_03_11"}, "openai"),
    ({"type": "code_interpreter", "container": {"type": "auto"}}, "openai"),
    ({"type": "mcp", "server_label": "x"}, "openai"),
    ({"type": "web_search_20250305", "name": "web_search"}, "anthropic"),
    ({"type": "bash_20250124", "name": "bash"}, "anthropic"),
    ({"type": "mcp_toolset", "mcp_server_name": "x"}, "anthropic"),
    ({"google_search": {}}, "google_genai"),
]
DEFINED = [
    {"name": "f", "description": "", "parameters": {}},
    {"name": "f", "input_schema": {"type": "object", "properties": {}}},
    {"type": "function", "function": {"name": "f", "parameters": {}}},
    {"type": "custom", "name": "f", "input_schema": {"type": "object"}},
    {"title": "f", "type": "object", "properties": {}},
    {"code_execution": {}, "name": "f", "parameters": {}},
]
PROVIDERS = ("openai", "azure", "anthropic", "google_genai")


@pytest.fixture
def speakers():
    """Return what models of all providers can, and of one that nobody knows."""
    return Abilities(
        (name, CandidateModel(model=ScriptedChatModel(provider=name)))
        for name in (*PROVIDERS, "elsewhere")
    )


class TestOwnTools:
    """Tools that a provider runs itself."""

    @pytest.mark.parametrize(("own", "provider"), OWN_TOOLS)
    def test_only_its_provider_competes_and_who_is_unknown(
        self, speakers, own, provider
    ):
        theirs = {provider, "azure"} if provider == "openai" else {provider}
        barred = speakers.barred(ToolBinding([add, own], None, {}).needs)
        assert set(barred) == set(PROVIDERS) - theirs
        assert all("own tools" in reason for reason in barred.values())

    @pytest.mark.parametrize("defined", DEFINED)
    def test_a_tool_that_is_defined_is_anybodys(self, speakers, defined):
        assert not speakers.barred(ToolBinding([defined], None, {}).needs)

    def test_the_provider_that_has_it_answers(self, pool):
        model = pool(best={"provider": "anthropic"}, second={"provider": "openai"})
        answer = model.bind_tools([{"type": "web_search"}]).invoke("q")
        assert answer.content == "From the second."
        dated = {"type": "web_search_20250305", "name": "web_search"}
        assert model.bind_tools([dated]).invoke("q").content == "From the best."

    def test_no_tool_is_bound_as_something_that_it_is_not(self, clients):
        # ChatOpenAI makes a function without parameters of Anthropic's search.
        search = {"type": "web_search_20250305", "name": "web_search"}
        model = MixLLMChatModel(
            candidates=[priced(name, client) for name, client in clients.items()]
        )
        needs = ToolBinding([search], None, {}).needs
        abilities = Abilities((c.known_name(), c) for c in model.candidates)
        assert list(abilities.barred(needs)) == ["openai"]


class TestRawTools:
    """Tools given as a bare argument, which nobody converts."""

    def test_they_reach_the_model_as_they_are(self, pool, asked):
        model = pool()
        raw = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
        model.bind(tools=raw, tool_choice="required").invoke("q")
        (call,) = asked(model, "best")
        assert call.kwargs["tools"] == raw
        assert call.kwargs["tool_choice"] == "required"

    @pytest.mark.parametrize(
        ("raw", "answers"),
        [
            ({"type": "function", "function": {"name": "f"}}, "openai"),
            ({"name": "f", "input_schema": {}}, "anthropic"),
            ({"type": "web_search"}, "openai"),
            ({"type": "bash_20250124", "name": "bash"}, "anthropic"),
        ],
    )
    @pytest.mark.parametrize("best", ["openai", "anthropic"])
    def test_who_cannot_read_them_does_not_compete(self, pool, raw, answers, best):
        other = {"openai": "anthropic", "anthropic": "openai"}[best]
        model = pool(best={"provider": best}, second={"provider": other})
        said = model.invoke("q", tools=[raw]).content
        assert said == ("From the best." if best == answers else "From the second.")


class TestRefusal:
    """A model that cannot bind the tools is passed over."""

    class Refusing(ScriptedChatModel):
        def bind_tools(self, tools, **kwargs):
            raise NotImplementedError("no such tools")

        def with_structured_output(self, schema, **kwargs):
            raise ValueError("no such schema")

    def pool_of(self, *others):
        best = priced("best", self.Refusing(), prior_quality=0.9)
        model = MixLLMChatModel(candidates=[best, *others])
        model.router.exploration = 0.0
        return model

    def test_another_one_answers_and_it_does_not_rest(self, scripted_candidate):
        model = self.pool_of(scripted_candidate("second"))
        answer = model.bind_tools([add]).invoke("2 and 3")
        assert answer.tool_calls
        (attempt,) = answer.response_metadata["mixllm"]["attempts"]
        assert attempt["candidate"] == "best"
        assert attempt["error"] == "NotImplementedError"
        assert not model.dispatcher.cooldown.due()
        schema = {"title": "S", "description": "s", "type": "object", "properties": {}}
        assert model.with_structured_output(schema).invoke("q") == {}

    def test_if_all_refuse_the_first_error_is_raised(self, load_of):
        model = self.pool_of()
        with pytest.raises(NotImplementedError, match="no such tools"):
            model.bind_tools([add]).invoke("q")
        with pytest.raises(ValueError, match="no such schema"):
            model.with_structured_output({"title": "S"}).invoke("q")
        assert load_of(model) == 0

    def test_no_tools_at_all_ask_for_nobody_who_calls_them(self, pool):
        model = pool(best={"facts": {"tools": False}})
        assert model.bind_tools([]).invoke("q").content == "From the best."
        assert model.invoke([HumanMessage("q")], tools=[]).content == "From the best."
