"""What a call needs of who answers it, and who may not: by block, tool and profile."""

import pytest
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    ToolMessage,
)

from mixllm_integrations.core.errors import ConfigurationError, NoCandidateError
from mixllm_integrations.langchain import CandidateModel
from mixllm_integrations.langchain.binding import SchemaBinding, ToolBinding
from mixllm_integrations.langchain.candidates.needs import (
    NO_NEEDS,
    Abilities,
    Needs,
    needs_of,
)
from mixllm_integrations.testing import ScriptedChatModel

IMAGE = {"type": "image", "base64": "AA==", "mime_type": "image/png"}
IMAGE_BY_URL = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
SHOWN = {"type": "tool_result", "tool_use_id": "1", "content": [IMAGE]}
AUDIO = {"type": "audio", "base64": "AA==", "mime_type": "audio/wav"}
VIDEO = {"type": "video", "url": "https://x/y.mp4"}
PDF = {"type": "file", "base64": "AA==", "mime_type": "application/pdf"}


def test_a_plain_text_needs_nothing():
    assert needs_of([HumanMessage("q")], None, {}) is NO_NEEDS
    assert needs_of([HumanMessage("q")], None, {"temperature": 0}) is NO_NEEDS
    assert Abilities([]).barred(NO_NEEDS) == {}


def test_images_are_the_routers_word_and_the_rest_is_not():
    needs = needs_of([HumanMessage([IMAGE_BY_URL, PDF])], None, {})
    assert needs.requires == ("vision",)
    assert needs.details == {"image_url_inputs", "pdf_inputs"}


@pytest.mark.parametrize(
    ("choice", "forced"),
    [
        (None, False),
        (False, False),
        ("auto", False),
        ("none", False),
        ({"type": "auto"}, False),
        ({"type": "none"}, False),
        ({"mode": "AUTO"}, False),  # a form we do not know is tried
        ({"type": "allowed_tools", "mode": "auto", "tools": []}, False),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}, False),
        (True, True),
        ("any", True),
        ("required", True),
        ("add", True),
        ({"type": "any"}, True),
        ({"type": "tool", "name": "add"}, True),
        ({"type": "function", "function": {"name": "add"}}, True),
        ({"type": "allowed_tools", "mode": "required", "tools": []}, True),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required"}}, True),
    ],
)
def test_a_tool_that_must_be_called_is_a_need(choice, forced):
    needs = ToolBinding([{"name": "add"}], choice, {}).needs
    assert needs.requires == ("tools",)
    assert ("tool_choice" in needs.details) is forced
    raw = {"tools": [{"name": "add"}], "tool_choice": choice}
    assert needs_of([HumanMessage("q")], None, raw) == needs


def test_a_choice_without_tools_needs_nothing():
    assert needs_of([HumanMessage("q")], None, {"tool_choice": "any"}) is NO_NEEDS
    assert ToolBinding([], "any", {}).needs is NO_NEEDS
    formatted = {"tool_choice": "any", "response_format": {"type": "json_schema"}}
    needs = needs_of([HumanMessage("q")], None, formatted)
    assert needs == Needs((), frozenset({"structured_output"}))


@pytest.mark.parametrize(
    ("method", "requires", "details"),
    [
        (None, ("structured_output",), set()),
        ("json_mode", ("structured_output",), set()),
        ("function_calling", ("structured_output", "tools"), set()),
        ("json_schema", ("structured_output",), {"structured_output"}),
    ],
)
def test_each_method_of_filling_a_schema_has_its_own_needs(method, requires, details):
    kwargs = {} if method is None else {"method": method}
    binding = SchemaBinding({"title": "S"}, include_raw=False, kwargs=kwargs)
    assert binding.needs == Needs(requires, frozenset(details))


def test_tools_beside_a_schema_are_a_need():
    kwargs = {"method": "json_schema", "tools": [{"name": "add"}]}
    binding = SchemaBinding({"title": "S"}, include_raw=False, kwargs=kwargs)
    assert binding.needs.requires == ("structured_output", "tools")


@pytest.mark.parametrize(
    ("schema", "native"),
    [
        ({"type": "json_schema", "json_schema": {}}, True),
        ({"type": "object", "properties": {}}, True),
        (int, True),
        ({"type": "json_object"}, False),
        ({"type": "text"}, False),
        (None, False),
    ],
)
def test_a_response_format_with_a_schema_is_a_need(schema, native):
    given = {"response_format": schema}
    for needs in (
        needs_of([HumanMessage("q")], None, given),
        ToolBinding([{"name": "add"}], None, given).needs,
    ):
        assert ("structured_output" in needs.details) is native


def test_what_the_binding_the_arguments_and_the_prompt_need_adds_up():
    binding = SchemaBinding({}, include_raw=False, kwargs={"method": "json_schema"})
    needs = needs_of(
        [HumanMessage([IMAGE_BY_URL])], binding, {"tools": [1], "tool_choice": "any"}
    )
    assert needs.requires == ("structured_output", "tools", "vision")
    assert needs.details == {"structured_output", "tool_choice", "image_url_inputs"}


@pytest.fixture
def barred():
    """Return why a model may not answer, by its profile and what is declared."""

    def reason(*details, own=None, provider="scripted", **facts):
        model = ScriptedChatModel(profile=own, provider=provider)
        abilities = Abilities([("it", CandidateModel(model=model, **facts))])
        return abilities.barred(Needs((), frozenset(details))).get("it")

    return reason


class TestAbilities:
    """Who is known to lack what is needed, and who is not."""

    @pytest.mark.parametrize(
        ("key", "reason"),
        [
            ("pdf_inputs", "takes no PDF (profile pdf_inputs)"),
            ("tool_choice", "cannot be forced to call a tool (profile tool_choice)"),
        ],
    )
    def test_the_reason_names_what_is_missing_and_where_that_is_written(
        self, barred, key, reason
    ):
        assert barred(key, own={key: False}) == reason

    def test_several_reasons_are_all_told(self, barred):
        profile = {"pdf_inputs": False, "audio_inputs": False, "video_inputs": False}
        reason = barred("pdf_inputs", "audio_inputs", own=profile)
        assert reason == (
            "takes no audio (profile audio_inputs); takes no PDF (profile pdf_inputs)"
        )

    @pytest.mark.parametrize("profile", [None, {}, {"pdf_inputs": True}])
    def test_what_is_there_or_unknown_is_tried(self, barred, profile):
        assert barred("pdf_inputs", "audio_inputs", own=profile) is None

    def test_what_goes_without_saying_is_not_said(self, barred):
        profile = {"pdf_inputs": False, "pdf_tool_message": False}
        assert "result" not in barred(*profile, own=profile)
        # Images and tools are the router's words.
        blind = {"image_inputs": False, "image_url_inputs": False}
        assert barred("image_url_inputs", own=blind) is None
        handless = {"tool_calling": False, "tool_choice": False}
        assert barred("tool_choice", own=handless) is None

    def test_the_same_needs_are_looked_at_once(self):
        abilities = Abilities([("it", CandidateModel(model=ScriptedChatModel()))])
        needs = Needs((), frozenset({"pdf_inputs"}))
        assert abilities.barred(needs) is abilities.barred(Needs(*needs))


class TestOverrides:
    """What is declared goes before what the model's own profile says."""

    def test_a_profile_is_merged_over_the_models_own(self, barred):
        own = {"pdf_inputs": False, "audio_inputs": False}
        candidate = CandidateModel(
            model=ScriptedChatModel(profile=own), profile={"pdf_inputs": True}
        )
        assert candidate.known_profile() == {"pdf_inputs": True, "audio_inputs": False}
        assert barred("pdf_inputs", own=own, profile={"pdf_inputs": True}) is None
        assert barred("audio_inputs", own=own, profile={"pdf_inputs": True})

    def test_it_can_also_take_away(self, barred):
        assert barred("pdf_inputs", own={"pdf_inputs": True}) is None
        declared = {"pdf_inputs": False}
        assert barred("pdf_inputs", own={"pdf_inputs": True}, profile=declared)

    def test_the_router_sees_it_too(self):
        profile = {"image_inputs": False, "tool_calling": False, "max_input_tokens": 9}
        facts = CandidateModel(
            model=ScriptedChatModel(profile={"image_inputs": True}),
            input_cost_per_million_tokens=0,
            output_cost_per_million_tokens=0,
            profile=profile,
        ).candidate()
        assert (facts.vision, facts.tools, facts.context_window) == (False, False, 9)

    def test_a_field_goes_before_it(self):
        candidate = CandidateModel(
            model=ScriptedChatModel(), vision=True, profile={"image_inputs": False}
        )
        assert candidate.known_profile()["image_inputs"] is True

    @pytest.mark.parametrize(
        ("declared", "detail"),
        [
            ({"vision": True}, "image_url_inputs"),
            ({"vision": True}, "image_tool_message"),
            ({"tools": True}, "tool_choice"),
            ({"profile": {"pdf_inputs": True}}, "pdf_tool_message"),
        ],
    )
    def test_with_an_ability_comes_what_its_lack_had_ruled_out(
        self, barred, declared, detail
    ):
        first = {
            "image": "image_inputs",
            "tool_": "tool_calling",
            "pdf_t": "pdf_inputs",
        }
        own = {first[detail[:5]]: False, detail: False}
        assert barred(detail, own=own, **declared) is None
        # Where the model has the ability, the detail is a fact of its own.
        own = {first[detail[:5]]: True, detail: False}
        assert barred(detail, own=own, **declared)

    def test_an_unknown_key_is_an_error_that_names_it(self):
        with pytest.raises(ConfigurationError, match=r"'pdf_input'.*pdf_inputs"):
            CandidateModel(model=ScriptedChatModel(), profile={"pdf_input": True})

    def test_a_value_of_another_type_is_an_error_that_names_it(self):
        with pytest.raises(ConfigurationError, match=r"'pdf_inputs'.*'yes'"):
            CandidateModel(model=ScriptedChatModel(), profile={"pdf_inputs": "yes"})

    def test_a_cached_price_is_a_price(self):
        for price in (0, 0.5, None):
            CandidateModel(
                model=ScriptedChatModel(), cached_input_cost_per_million_tokens=price
            )
        for wrong in (-1, float("nan"), float("inf"), "1"):
            with pytest.raises(
                ConfigurationError, match="cached_input_cost_per_million_tokens"
            ):
                CandidateModel(
                    model=ScriptedChatModel(),
                    cached_input_cost_per_million_tokens=wrong,
                )


def without(*keys):
    """Return facts of a candidate whose profile lacks some abilities."""
    return {"facts": {"profile": dict.fromkeys(keys, False)}}


class TestCompetition:
    """Only capable candidates compete, also after a failure."""

    def ask(self, model, *blocks):
        return model.invoke([HumanMessage([{"type": "text", "text": "q"}, *blocks])])

    @pytest.mark.parametrize(
        ("key", "block"),
        [
            ("pdf_inputs", PDF),
            ("audio_inputs", AUDIO),
            ("video_inputs", VIDEO),
            ("image_inputs", IMAGE),
            ("image_url_inputs", IMAGE_BY_URL),
            ("image_tool_message", SHOWN),
        ],
    )
    def test_an_input_goes_to_who_takes_it(self, pool, key, block):
        model = pool(best=without(key))
        assert self.ask(model, block).content == "From the second."
        assert self.ask(model).content == "From the best."

    async def test_in_every_mode(self, pool):
        model = pool(best=without("pdf_inputs"))
        asked = [HumanMessage([PDF])]
        texts = [
            (await model.ainvoke(asked)).text,
            "".join(chunk.text for chunk in model.stream(asked)),
            "".join([chunk.text async for chunk in model.astream(asked)]),
            model.batch([asked])[0].text,
            model.generate([asked]).generations[0][0].text,
        ]
        assert texts == ["From the second."] * 5

    def test_if_nobody_can_the_error_lists_who_lacks_what(self, pool):
        model = pool(
            best=without("pdf_inputs", "audio_inputs"), second=without("pdf_inputs")
        )
        with pytest.raises(NoCandidateError) as caught:
            self.ask(model, PDF, AUDIO)
        assert "takes no audio" in caught.value.excluded["best"]
        assert "takes no PDF" in caught.value.excluded["best"]
        assert caught.value.excluded["second"] == "takes no PDF (profile pdf_inputs)"
        assert "AA==" not in str(caught.value)

    def test_the_routers_reasons_stand_beside_ours(self, pool):
        model = pool(best=without("pdf_inputs"), second={"facts": {"tools": False}})
        with pytest.raises(NoCandidateError) as caught:
            model.bind_tools([{"name": "f"}]).invoke([HumanMessage([PDF])])
        assert "PDF" in caught.value.excluded["best"]
        assert "tools" in caught.value.excluded["second"]

    def test_after_a_failure_nobody_is_asked_who_cannot(self, pool, asked):
        model = pool(best={"errors": [TimeoutError()]}, second=without("pdf_inputs"))
        with pytest.raises(TimeoutError):
            self.ask(model, PDF)
        assert not asked(model, "second")

    def test_a_loop_leaves_its_candidate_for_what_that_cannot_take(self, pool):
        call = {"name": "scan", "args": {}, "id": "1", "type": "tool_call"}
        begun = {"mixllm": {"candidate": "best"}}
        thread = [
            HumanMessage("q"),
            AIMessage("", tool_calls=[call], response_metadata=begun),
            ToolMessage([PDF], tool_call_id="1"),
        ]
        assert pool().invoke(thread).content == "From the best."
        model = pool(best=without("pdf_tool_message"))
        assert model.invoke(thread).content == "From the second."

    def test_a_forced_candidate_is_not_asked_for_what_it_cannot(self, pool, asked):
        model = pool(best=without("pdf_inputs"))
        with pytest.raises(NoCandidateError, match="takes no PDF"):
            model.invoke([HumanMessage([PDF])], model="best")
        assert not asked(model, "best")
