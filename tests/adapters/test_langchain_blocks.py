"""Blocks of content in every provider's form, and what they ask of a model."""

import pytest
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from mixllm_integrations.langchain.candidates.blocks import inputs_of

PDF = "application/pdf"
IMAGE, URL = {"image_inputs"}, {"image_inputs", "image_url_inputs"}
PDFS, AUDIO, VIDEO = {"pdf_inputs"}, {"audio_inputs"}, {"video_inputs"}
FILE = {"attachment"}

STANDARD = [
    ({"type": "image", "base64": "AA==", "mime_type": "image/png"}, IMAGE),
    ({"type": "image", "url": "https://x/y.png"}, URL),
    ({"type": "image", "url": "data:image/png;base64,AA=="}, IMAGE),
    ({"type": "image", "file_id": "f1"}, IMAGE),
    ({"type": "image", "source_type": "url", "url": "https://x/y.png"}, URL),
    ({"type": "audio", "base64": "AA==", "mime_type": "audio/wav"}, AUDIO),
    ({"type": "video", "url": "https://x/y.mp4"}, VIDEO),
    ({"type": "file", "base64": "AA==", "mime_type": PDF}, PDFS),
    ({"type": "file", "url": "https://x/y.pdf?version=2"}, PDFS),
    ({"type": "file", "base64": "AA==", "mime_type": "text/csv"}, set()),
    ({"type": "file", "base64": "AA==", "mime_type": "application/zip"}, FILE),
    ({"type": "file", "file_id": "f1"}, FILE),
    ({"type": "file", "source_type": "text", "text": "hi"}, set()),
    ({"type": "text-plain", "text": "hi", "mime_type": "text/plain"}, set()),
    ({"type": "text", "text": "image"}, set()),
    ({"type": "reasoning", "reasoning": "hm"}, set()),
    ({"type": "non_standard", "value": {"type": "input_audio"}}, AUDIO),
]
OPENAI = [
    ({"type": "image_url", "image_url": {"url": "https://x/y.png"}}, URL),
    ({"type": "image_url", "image_url": "https://x/y.png"}, URL),
    ({"type": "image_url", "image_url": {"url": "data:image/png;base64,A"}}, IMAGE),
    ({"type": "image_url", "image_url": {"url": f"data:{PDF};base64,A"}}, PDFS),
    ({"type": "image_url", "image_url": {"url": "data:audio/wav;base64,A"}}, AUDIO),
    ({"type": "image_url", "image_url": {"url": "data:x/y;base64,A"}}, IMAGE),
    ({"type": "input_image", "image_url": "https://x/y.png"}, URL),
    ({"type": "input_image", "file_id": "f1"}, IMAGE),
    ({"type": "input_audio", "input_audio": {"data": "A", "format": "wav"}}, AUDIO),
    ({"type": "file", "file": {"file_data": f"data:{PDF};base64,A"}}, PDFS),
    ({"type": "file", "file": {"file_data": "A", "filename": "a.pdf"}}, PDFS),
    ({"type": "file", "file": {"file_id": "f1"}}, FILE),
    ({"type": "input_file", "file_url": "https://x/y.pdf"}, PDFS),
    ({"type": "video_url", "video_url": {"url": "https://x/y"}}, VIDEO),
]
_SOURCE = {"type": "base64", "media_type": PDF, "data": "A"}
_TEXT = {"type": "text", "media_type": "text/plain", "data": "hi"}
_SHOWN = {"type": "image", "source": {"type": "base64", "data": "A"}}
ANTHROPIC = [
    (_SHOWN, IMAGE),
    ({"type": "image", "source": {"type": "url", "url": "https://x/y"}}, URL),
    ({"type": "document", "source": _SOURCE}, PDFS),
    ({"type": "document", "source": {"type": "url", "url": "https://x/y"}}, PDFS),
    ({"type": "document", "source": {"type": "file", "file_id": "f1"}}, FILE),
    ({"type": "document", "source": _TEXT}, set()),
    ({"type": "document", "source": {"type": "content", "content": [_SHOWN]}}, IMAGE),
    (
        {"type": "tool_result", "tool_use_id": "1", "content": [_SHOWN]},
        {*IMAGE, "image_tool_message"},
    ),
    ({"type": "tool_result", "tool_use_id": "1", "content": "3"}, set()),
]
GOOGLE = [
    ({"type": "media", "mime_type": "image/png", "data": "A"}, IMAGE),
    ({"type": "media", "mime_type": "audio/wav", "data": "A"}, AUDIO),
    ({"type": "media", "mime_type": "video/mp4", "file_uri": "gs://x/y"}, VIDEO),
    ({"type": "media", "mime_type": PDF, "file_uri": "https://x/y"}, PDFS),
    ({"type": "image_url", "image_url": "gs://x/y.png"}, IMAGE),
]
MALFORMED = [
    "a bare text",
    {},
    {"type": None},
    {"type": ["image"]},
    {"type": "tool_result", "content": None},
    {"type": "non_standard", "value": "x"},
]


@pytest.mark.parametrize(("block", "asked"), STANDARD + OPENAI + ANTHROPIC + GOOGLE)
def test_a_block_in_any_providers_form_asks_for_what_it_shows(block, asked):
    assert inputs_of([HumanMessage([block])]) == asked


@pytest.mark.parametrize("block", MALFORMED)
def test_a_block_that_nobody_knows_asks_for_nothing(block):
    message = HumanMessage("")
    message.content = [block]
    assert not inputs_of([message])


@pytest.mark.parametrize("kind", ["image", "image_url", "input_image", "document"])
@pytest.mark.parametrize("value", [None, 5, "x", []])
def test_a_block_with_odd_values_is_left_to_the_model(kind, value):
    blocks = [{"type": kind, key: value} for key in ("source", "url", "image_url")]
    assert inputs_of([HumanMessage(blocks)]) <= {"image_inputs", "pdf_inputs"}


def test_all_messages_and_all_their_blocks_count():
    image, audio, pdf = (block for block, _ in (OPENAI[0], STANDARD[5], STANDARD[7]))
    thread = [
        SystemMessage([{"type": "text", "text": "s"}]),
        HumanMessage([image, audio]),
        AIMessage("Nice."),
        HumanMessage([pdf]),
        HumanMessage("And now?"),
    ]
    assert inputs_of(thread) == URL | AUDIO | PDFS


def test_images_and_pdfs_from_a_tool_ask_for_more():
    image, pdf, audio = (block for block, _ in (OPENAI[2], STANDARD[7], STANDARD[5]))
    in_tool = {"image_tool_message", "pdf_tool_message"}
    result = ToolMessage([image, pdf, audio], tool_call_id="1")
    assert inputs_of([result]) == IMAGE | PDFS | AUDIO | in_tool
    asked = HumanMessage([image, pdf, audio])
    assert inputs_of([asked]) == IMAGE | PDFS | AUDIO
