"""Where an answer carries the id of its decision."""

from types import SimpleNamespace

import pytest

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.serving import decision_id_of, record_of

RECORD = {"decision_id": "d1", "candidate": "small"}
MESSAGE = SimpleNamespace(response_metadata={"mixllm": RECORD})
LLAMA_MESSAGE = SimpleNamespace(additional_kwargs={"mixllm": RECORD})


@pytest.mark.parametrize(
    "answer",
    [
        "d1",
        RECORD,
        {"mixllm": RECORD},
        MESSAGE,
        LLAMA_MESSAGE,
        SimpleNamespace(message=LLAMA_MESSAGE, additional_kwargs={}),
        {"raw": MESSAGE, "parsed": None, "parsing_error": None},
    ],
)
def test_the_decision_is_found_on_every_form_of_an_answer(answer):
    assert decision_id_of(answer) == "d1"


@pytest.mark.parametrize(
    "answer",
    [None, 7, {}, {"raw": None}, SimpleNamespace(response_metadata={}), object()],
)
def test_an_answer_without_a_decision_is_an_error_that_shows_none_of_it(answer):
    assert record_of(answer) is None
    with pytest.raises(ConfigurationError, match="no decision is recorded"):
        decision_id_of(answer)
