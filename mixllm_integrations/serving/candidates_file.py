"""candidates.toml: one file of models for Python, LlamaIndex and the terminal.

What each command needs of it: prices and names (``fit``, ``benchmark``), models
that can be asked (``collect``, `MixLLMChatModel.from_config`), and how the router
over them is set up (`from_config`). Only the first table is necessary::

    [[candidates]]                      # one table per model
    model = "openai:gpt-4o-mini"        # provider:name, as init_chat_model takes it
    name = "small"                      # else the name after the colon
    input_cost_per_million_tokens = 0.15    # USD; else the list price
    output_cost_per_million_tokens = 0.60
    api_key_env = "MY_KEY"              # the variable's NAME; else the provider's own
    timeout_seconds = 60
    [candidates.arguments]              # of the chat model's class
    base_url = "http://127.0.0.1:8000/v1"
    temperature = 0.0

    [judge]                             # who grades for `mixllm collect`: same keys
    model = "openai:gpt-4o"

    [router]                            # parameters of `Router`, and:
    state = "router"                    # a folder of Router.save, beside this file
    willingness_to_pay = 0.01

    [serving]                           # parameters of MixLLMChatModel and MixLLM
    store = "sqlite:///mixllm.db"

A candidate takes every parameter of `Candidate` too. A file that only tells
prices, as ``mixllm fit`` reads it, needs no `model`, but `name` and both prices.
The same as JSON is taken as well, and there a bare list of candidates.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving.candidates_tables import (
    CandidateEntry,
    CandidatesTables,
    RouterTable,
    ServingTable,
)
from mixllm_integrations.serving.toml_lines import KeyPath, line_of, shown_path

__all__ = [
    "CandidatesFile",
    "CandidatesFileError",
    "read_candidates_file",
]

_SECRET = re.compile(
    r"(?:^|[_-])(?:key|token|secret|password|authorization)$", re.IGNORECASE
)
_LINE_TOLD = re.compile(r"line (\d+)")


class CandidatesFileError(ConfigurationError):
    """A file of candidates that cannot be used.

    Parameters
    ----------
    file
        Its name.
    problem
        What is wrong; never a text out of the file, which may be a secret.
    key_path
        Where, such as ``"candidates[0].name"``; empty: the file as a whole.
    line
        On which line, where that is known.
    """

    def __init__(
        self, file: str, problem: str, *, key_path: str = "", line: int | None = None
    ) -> None:
        self.file, self.problem = file, problem
        self.key_path, self.line = key_path, line
        place = file if line is None else f"{file}, line {line}"
        super().__init__(f"{place}: {key_path + ' ' if key_path else ''}{problem}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes as what it was made of, not as its message."""
        return _error, (self.file, self.problem, self.key_path, self.line)


def _error(
    file: str, problem: str, key_path: str, line: int | None
) -> CandidatesFileError:
    return CandidatesFileError(file, problem, key_path=key_path, line=line)


class CandidatesFile(CandidatesTables):
    """What a file of candidates says; made by `read_candidates_file`.

    Parameters
    ----------
    candidates
        The models, in the order of the file.
    judge
        Who grades answers, if the file says so.
    router
        How the router is set up.
    serving
        What `MixLLMChatModel` and `MixLLM` are given beside the candidates.
    """

    _file: Path = Path("candidates.toml")
    _text: str | None = None

    def error(self, problem: str, *path: str | int) -> CandidatesFileError:
        """Return an error that names a place in this file.

        Parameters
        ----------
        problem
            What is wrong there.
        *path
            Keys and places in lists.
        """
        line = None if self._text is None else line_of(self._text, path)
        return CandidatesFileError(
            self._file.name, problem, key_path=shown_path(path), line=line
        )

    def facts(self) -> tuple[Candidate, ...]:
        """Return what a router sees of the candidates, list prices looked up.

        Raises
        ------
        CandidatesFileError
            If a price is neither in the file nor listed.
        """
        return tuple(
            self.fact(entry, "candidates", number)
            for number, entry in enumerate(self.candidates)
        )

    def fact(self, entry: CandidateEntry, *place: str | int) -> Candidate:
        """Return what a router sees of one entry.

        Parameters
        ----------
        entry
            One of the candidates, or the judge.
        *place
            Of the entry in the file, for errors.

        Raises
        ------
        CandidatesFileError
            If its price is neither in the file nor listed.
        """
        try:
            return entry.fact()
        except ConfigurationError as error:
            raise self.error(
                f"has no list price that is known ({entry.model}): write "
                "input_cost_per_million_tokens and output_cost_per_million_tokens "
                "in USD (0 for a model that costs nothing)",
                *place,
                "model",
            ) from error

    def beside(self, path: str) -> Path:
        """Return where a relative path of the file leads: from its folder.

        Parameters
        ----------
        path
            As it stands in the file.
        """
        return self._file.parent / Path(path).expanduser()

    def read_from(self, file: Path, text: str | None) -> "CandidatesFile":
        """Note where it was read, and check what the tables cannot.

        Parameters
        ----------
        file
            The file.
        text
            Its text, if it is TOML.
        """
        self._file, self._text = file, text
        places = [("candidates", n) for n in range(len(self.candidates))]
        names: set[str] = set()
        for place, entry in zip(places, self.candidates, strict=True):
            self._check(entry, place)
            if entry.known_name in names:
                raise self.error(
                    f"{entry.known_name!r} is the name of two candidates: give one of "
                    "them another `name`",
                    *place,
                    "name",
                )
            names.add(entry.known_name)
        if self.judge is not None:
            self._check(self.judge, ("judge",))
        return self

    def _check(self, entry: CandidateEntry, place: KeyPath) -> None:
        for table in ("arguments", "llama_index"):
            for path in _secrets(getattr(entry, table)):
                raise self.error(
                    "looks like a secret, which does not belong into a file: name the "
                    "environment variable that holds it, by api_key_env or, for "
                    "other arguments, in the table arguments_env",
                    *place,
                    table,
                    *path,
                )


def read_candidates_file(path: str | Path) -> CandidatesFile:
    """Read a file of candidates; nothing is imported, asked or looked up.

    Parameters
    ----------
    path
        A ``.toml`` file, or the same as ``.json``.

    Returns
    -------
    CandidatesFile
        Checked, except what only its use can tell.

    Raises
    ------
    CandidatesFileError
        If it cannot be read or used; names the key and, in TOML, the line.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "candidates.toml"
    ...     _ = file.write_text("candidates = [{ model = 'openai:gpt-4o-mini' }]")
    ...     read_candidates_file(file).facts()[0].input_cost_per_million_tokens
    0.15
    """
    file = Path(path)
    is_json = file.suffix == ".json"
    try:
        text = file.read_text(encoding="utf-8-sig")
        found = json.loads(text) if is_json else tomllib.loads(text)
    except OSError as error:
        raise CandidatesFileError(
            str(file), f"cannot be read: {error.strerror or type(error).__name__}"
        ) from error
    except (ValueError, RecursionError) as error:
        told = _LINE_TOLD.search(str(error))
        what = f"cannot be read as {'JSON' if is_json else 'TOML'}"
        if not isinstance(error, UnicodeDecodeError):
            # The parser's message is about signs, not about what they say.
            what += f": {str(error).split(' (at ')[0].split(': line')[0]}"
        raise CandidatesFileError(
            file.name, what, line=int(told[1]) if told else None
        ) from error
    if isinstance(found, list):
        found = {"candidates": found}
    if not isinstance(found, Mapping) or not isinstance(found.get("candidates"), list):
        raise CandidatesFileError(
            file.name, "holds no list named 'candidates': write [[candidates]] tables"
        )
    try:
        tables = CandidatesFile.model_validate(found)
    except ValidationError as error:
        raise _refused(file, None if is_json else text, error) from None
    return tables.read_from(file, None if is_json else text)


def _refused(
    file: Path, text: str | None, error: ValidationError
) -> CandidatesFileError:
    """Return the first of what is wrong with the tables, and how much else is."""
    problems = error.errors(include_url=False)
    first = problems[0]
    path = tuple(first["loc"])
    if first["type"] == "extra_forbidden":
        problem = _unknown(path)
    else:
        said = str(first["msg"]).removeprefix("Value error, ")
        problem = f"is wrong: {said[:1].lower()}{said[1:]}"
        if isinstance(first["input"], int | float):  # never a text
            problem += f", not {first['input']!r}"
    if len(problems) > 1:
        problem += f" (and {len(problems) - 1} more)"
    return CandidatesFileError(
        file.name,
        problem,
        key_path=shown_path(path),
        line=None if text is None else line_of(text, path),
    )


def _unknown(path: KeyPath) -> str:
    tables: dict[str, type[BaseModel]] = {
        "candidates": CandidateEntry,
        "judge": CandidateEntry,
        "router": RouterTable,
        "serving": ServingTable,
    }
    table = tables.get(str(path[0]) if len(path) > 1 else "", CandidatesTables)
    known = list(table.model_fields)
    close = get_close_matches(str(path[-1]), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {sorted(known)}"
    if table is CandidateEntry and not close:
        hint = (
            "what is an argument of the model's class belongs into its table "
            f"arguments, such as arguments = {{ {path[-1]} = ... }}; {hint}"
        )
    return f"is no key that is known here; {hint}"


def _secrets(value: object, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield where texts stand under a key that sounds like a secret's."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if isinstance(part, str) and _SECRET.search(str(key)):
                yield (*path, str(key))
            yield from _secrets(part, (*path, str(key)))
