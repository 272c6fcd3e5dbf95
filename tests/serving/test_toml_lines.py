"""Where a key of a TOML file stands."""

import tomllib

import pytest

from mixllm_integrations.serving.toml_lines import line_of, shown_path

TEXT = '''# models
[[candidates]]
name = "a"

[candidates.arguments]
base_url = "http://x"
headers = { x = "1" }

[[candidates]]
name = "b"
note = """
name = 3
[router]
"""
arguments.temperature = 0.5
"quoted key" = 1

[router]
seed = 1
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("candidates", 0), 2),
        (("candidates", 0, "name"), 3),
        (("candidates", 0, "arguments"), 5),
        (("candidates", 0, "arguments", "base_url"), 6),
        (("candidates", 0, "arguments", "headers", "x"), 7),
        (("candidates", 0, "missing"), 2),
        (("candidates", 1, "name"), 10),
        (("candidates", 1, "arguments", "temperature"), 15),
        (("candidates", 1, "quoted key"), 16),
        (("router", "seed"), 19),
        (("router",), 18),
        (("judge",), None),
        (("candidates", 7), 2),
    ],
)
def test_a_key_is_found_on_its_line_or_that_of_the_table_around_it(path, line):
    tomllib.loads(TEXT)  # it is TOML
    assert line_of(TEXT, path) == line


def test_a_path_is_shown_as_people_write_it():
    assert shown_path(("candidates", 1, "arguments", "x")) == (
        "candidates[1].arguments.x"
    )
    assert shown_path(()) == ""
