"""Which prompts a file or a log holds, and what it knows of answers to them."""

import csv
import gzip
import json

import pytest

from mixllm_integrations import ConfigurationError, RoutingRecord
from mixllm_integrations.training import PromptItem, read_prompts
from mixllm_integrations.training.labelling.prompts import (
    as_items,
    messages_in,
    sampled,
    text_in,
)


@pytest.fixture
def write(tmp_path):
    def written(*rows, name="log.jsonl"):
        file = tmp_path / name
        text = "".join(
            (row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows
        )
        if name.endswith(".gz"):
            file.write_bytes(gzip.compress(text.encode()))
        else:
            file.write_text(text, encoding="utf-8")
        return file

    return written


def test_prompts_have_three_names_and_each_is_taken_once(write):
    file = write(
        {"prompt": "one", "reference": "1", "tags": ["sums"]},
        {"query": "two", "scorer": "judge", "tags": "a; b"},
        {"messages": [{"role": "user", "content": "one"}]},
        "",
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "three"}]},
            ]
        },
    )
    log = read_prompts(file)
    assert log.items == (
        PromptItem((("user", "one"),), "1", None, ("sums",)),
        PromptItem((("user", "two"),), None, "judge", ("a", "b")),
        PromptItem((("system", "Be brief."), ("user", "three"))),
    )
    assert (log.calls, log.records, log.skipped) == ((), (), 0)
    assert log.items[0].query == "one"
    packed = write({"prompt": "one"}, name="log.jsonl.gz")
    assert read_prompts(packed).items[0].query == "one"


def test_an_openai_chat_log_gives_prompts_and_graded_answers(write):
    asked = [{"role": "user", "content": "2 + 2?"}]
    file = write(
        {  # a chat completion with its answer
            "model": "gpt-4o-mini",
            "messages": [*asked, {"role": "assistant", "content": "4"}],
            "response": {
                "model": "gpt-4o-mini-2024-07-18",
                "choices": [{"message": {"content": "4"}}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 2},
            },
            "score": 1,
            "cost": 0.5,
            "latency_s": 1.5,
        },
        {  # the result of a batch
            "custom_id": "a",
            "body": {"model": "gpt-4o", "messages": asked},
            "response": {"body": {"usage": {"prompt_tokens": 11}}},
            "feedback": {"score": 0.25},
        },
        {"messages": asked, "response": {"model": "gpt-4"}},  # nobody graded it
    )
    log = read_prompts(file)
    assert [item.messages for item in log.items] == [(("user", "2 + 2?"),)]
    assert log.records == (
        RoutingRecord("2 + 2?", "gpt-4o-mini", 1.0, 10, 2, 0.5, 1.5),
        RoutingRecord("2 + 2?", "gpt-4o", 0.25, 11),
    )
    assert [call.model for call in log.calls] == ["gpt-4o-mini", "gpt-4o", "gpt-4"]


def test_a_langsmith_export_gives_prompts_and_graded_answers(write):
    constructor = {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "schema", "messages", "HumanMessage"],
        "kwargs": {"content": "Why?"},
    }
    system = {"type": "system", "data": {"content": "Be brief."}}
    file = write(
        {
            "id": "1",
            "run_type": "llm",
            "inputs": {"messages": [[system, constructor]]},
            "outputs": {"usage_metadata": {"output_tokens": 7}},
            "extra": {"metadata": {"ls_model_name": "claude-haiku-4-5"}},
            "feedback_stats": {
                "helpful": {"n": 3, "avg": 1.0},
                "brief": {"n": 1, "avg": 0.0},
                "stars": {"n": 9, "avg": 4.5},  # no grade in [0, 1]
            },
            "start_time": "2026-01-01T00:00:00",
            "end_time": "2026-01-01T00:00:02.500000",
            "prompt_tokens": 12,
            "total_cost": "0.001",
        },
        {"inputs": {"question": "What?"}, "outputs": {"answer": "That."}},
        {
            "inputs": {"input": "Who?"},
            "extra": {"invocation_params": {"model": "gpt-4o"}},
            "start_time": "yesterday",
            "end_time": "today",
        },
    )
    log = read_prompts(file)
    assert [item.messages for item in log.items] == [
        (("system", "Be brief."), ("user", "Why?")),
        (("user", "What?"),),
        (("user", "Who?"),),
    ]
    # (3 × 1 + 1 × 0) / 4
    assert log.records == (
        RoutingRecord(log.items[0].query, "claude-haiku-4-5", 0.75, 12, 7, 0.001, 2.5),
    )
    assert log.calls[1].model == "gpt-4o"


def test_a_table_gives_prompts_and_graded_answers(tmp_path):
    file = tmp_path / "log.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        usage = '{"usage": {"prompt_tokens": 5}}'
        messages = '[{"role": "user", "content": "two"}]'
        writer.writerow(["prompt", "model", "quality", "cost", "tags", "response"])
        writer.writerow(["one", "small", "up", "-3", "a;b", usage])
        writer.writerow([messages, "", "", "", "", ""])
        writer.writerow(["[{ is no JSON", "large", "", "", "", "{"])
    log = read_prompts(file)
    assert [item.query for item in log.items] == ["one", "two", "[{ is no JSON"]
    assert log.records == (RoutingRecord("one", "small", 1.0, 5, tags=("a", "b")),)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{", "not an object"),
        ("[1]", "not an object"),
        ({"text": "secret"}, "there is no prompt"),
        ({"prompt": " "}, "must not be empty"),
        ({"prompt": "secret", "scorer": "vibes"}, "unknown scorer 'vibes'"),
        ({"prompt": "secret", "tags": [3]}, "tags are not"),
        ({"prompt": "secret", "model": "a", "score": 7}, r"in \[0, 1\]"),
        ({"messages": [{"role": "tool", "content": "secret"}]}, "calls of tools"),
        ({"messages": ["secret"]}, "object with role and content"),
        ({"messages": [{"type": "human", "data": "secret"}]}, "no content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "no text",
        ),
        ({"messages": [{"role": "assistant", "content": "secret"}]}, "must end with"),
    ],
)
def test_a_bad_row_is_told_with_its_line_or_passed_over(write, row, told):
    file = write({"prompt": "fine"}, row)
    with pytest.raises(ConfigurationError, match=f"line 2: .*{told}") as caught:
        read_prompts(file)
    assert "secret" not in str(caught.value)
    log = read_prompts(file, skip_bad_rows=True)
    assert (len(log.items), log.skipped) == (1, 1)


def test_a_file_that_cannot_be_read_is_told_of(write, tmp_path):
    with pytest.raises(ConfigurationError, match="No such file"):
        read_prompts(tmp_path / "none.jsonl")
    with pytest.raises(ConfigurationError, match="cannot tell the format"):
        read_prompts(tmp_path / "prompts.docx")
    with pytest.raises(ConfigurationError, match="holds no prompt"):
        read_prompts(write(""))
    file = tmp_path / "x.jsonl.gz"
    file.write_bytes(b"no archive")
    with pytest.raises(ConfigurationError, match="BadGzipFile"):
        read_prompts(file)


def test_prompts_as_objects_are_taken_in_any_form():
    item = PromptItem((("user", "a"),), tags=("t",))
    found = as_items([item, "b", {"prompt": "c"}, "a"])
    assert [one.query for one in found] == ["a", "b", "c"]
    assert found[0] is item
    with pytest.raises(ConfigurationError, match="no prompts"):
        as_items([])
    with pytest.raises(ConfigurationError, match="must be a list"):
        as_items("What?")
    with pytest.raises(ConfigurationError, match="a text or an object"):
        as_items([3])


def test_messages_are_read_in_the_forms_of_langchain():
    assert messages_in([("human", "a"), ["ai", "b"], ("user", "c")]) == (
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
    )
    assert text_in(["a", {"type": "text", "text": "b"}]) == "ab"
    with pytest.raises(ConfigurationError, match="no text"):
        text_in(None)


def test_a_larger_sample_goes_on_where_a_smaller_one_ended():
    items = as_items([f"prompt {n}" for n in range(50)])
    small, large = sampled(items, 5, 3), sampled(items, 20, 3)
    assert large[:5] == small
    assert sampled(list(reversed(items)), 5, 3) == small
    assert sampled(items, 5, 4) != small
    assert sorted(sampled(items, None, 3), key=lambda i: i.digest) == sorted(
        items, key=lambda i: i.digest
    )


def test_no_tokenizer_makes_more_tokens_of_a_prompt_than_are_assumed():
    item = PromptItem((("system", "Sei kurz."), ("user", "Größe? 大きさ 🙂")))
    # a byte each: 9 + (Größe? is 8) + 1 + 9 + 1 + 4, and 16 around each message
    assert item.most_tokens == 9 + 23 + 2 * 16
    assert item.likely_tokens < item.most_tokens
