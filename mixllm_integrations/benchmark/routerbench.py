"""Reads RouterBench, which is published as a pickled table of pandas.

A pickle may run any code when it is read. This reader admits nothing but the
parts that a plain table of texts and numbers is made of, and refuses the file
otherwise; there is no switch to trust it.
"""

import ast
import io
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mixllm_integrations.core.errors import ConfigurationError

__all__ = ["HUB_FILE", "HUB_ID", "download", "read_routerbench"]

HUB_ID = "withmartian/routerbench"
HUB_FILE = "routerbench_0shot.pkl"

_COST, _RESPONSE = "|total_cost", "|model_response"
_CHARACTERS_PER_TOKEN = 4
_SECONDS_TO_REACH = 4.0
_ADMITTED = {
    ("builtins", "slice"),
    ("builtins", "bytearray"),
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("pandas", "DataFrame"),
    ("pandas", "Index"),
    ("pandas", "RangeIndex"),
    ("pandas._libs.internals", "_unpickle_block"),
    ("pandas.core.indexes.base", "_new_Index"),
    ("pandas.core.internals.managers", "BlockManager"),
}
# Where older versions of pandas kept the same parts.
_MOVED = {
    ("pandas.core.frame", "DataFrame"): ("pandas", "DataFrame"),
    ("pandas.core.indexes.base", "Index"): ("pandas", "Index"),
    ("pandas.core.indexes.range", "RangeIndex"): ("pandas", "RangeIndex"),
    ("pandas.core.indexes.numeric", "Int64Index"): ("pandas", "Index"),
    ("pandas.core.internals.blocks", "new_block"): (
        "pandas._libs.internals",
        "_unpickle_block",
    ),
}


def read_routerbench(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield one row per prompt and model of a RouterBench file.

    Parameters
    ----------
    file
        A pickled table with the columns ``sample_id``, ``prompt``,
        ``eval_name``, and for each model a score named by the model,
        ``<model>|total_cost`` and maybe ``<model>|model_response``.

    Yields
    ------
    tuple[str, dict[str, Any]]
        Where it stands, and the fields of a record. The lengths of answers are
        counted as one token per four characters, as the file holds none.

    Raises
    ------
    ConfigurationError
        If pandas is missing, the pickle holds anything but a plain table, or
        the table is not one of RouterBench.
    """
    frame = _restricted(file)
    names = [str(name) for name in getattr(frame, "columns", ())]
    models = [name.removesuffix(_COST) for name in names if name.endswith(_COST)]
    lacking = {"sample_id", "prompt", "eval_name", *models} - set(names)
    if lacking or not models:
        raise ConfigurationError(
            f"{file.name} is not a table of RouterBench: it lacks the columns "
            f"{sorted(lacking) or ['<model>' + _COST]}"
        )
    columns = {name: list(frame[name]) for name in names}
    for row in range(len(frame)):
        shared = {
            "query_id": columns["sample_id"][row],
            "query": _joined(columns["prompt"][row]),
            "tags": [str(columns["eval_name"][row])],
        }
        for model in models:
            yield (
                f"row {row + 1}",
                shared
                | {
                    "candidate": model,
                    "quality": _plain_number(columns[model][row]),
                    "cost": _plain_number(columns[model + _COST][row]),
                    "output_tokens": _counted(columns.get(model + _RESPONSE), row),
                },
            )


def download(repo_id: str = HUB_ID, filename: str = HUB_FILE) -> Path:
    """Return the local path of a file of a data set on the Hugging Face hub.

    Parameters
    ----------
    repo_id
        The data set.
    filename
        Which of its files.

    Returns
    -------
    Path
        In the hub's cache on this machine; asked for over the network only if
        it is not there yet.

    Raises
    ------
    ConfigurationError
        If it cannot be had; the message says how to get it.
    """
    from huggingface_hub import HfApi, hf_hub_download

    why: Exception | None = None
    for local in (True, False):
        try:
            if not local:  # answers at once; the download tries again and again
                HfApi().dataset_info(repo_id, timeout=_SECONDS_TO_REACH)
            return Path(
                hf_hub_download(
                    repo_id, filename, repo_type="dataset", local_files_only=local
                )
            )
        except Exception as error:  # noqa: BLE001 - its client raises many kinds
            why = error
    raise ConfigurationError(
        f"{filename!r} of the data set {repo_id!r} is not on this machine and cannot "
        f"be downloaded ({type(why).__name__}). Where there is a network, run "
        f"`hf download {repo_id} {filename} --repo-type dataset --local-dir FOLDER`, "
        f"and pass --data FOLDER/{filename} here"
    ) from why


class _TableUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        if module == "__builtin__":  # its name in Python 2, and in old pickles
            module = "builtins"
        module = module.replace("numpy.core.", "numpy._core.", 1)
        module, name = _MOVED.get((module, name), (module, name))
        if (module, name) not in _ADMITTED:
            raise ConfigurationError(
                f"the pickle asks for {module}.{name}, which is no part of a plain "
                "table of texts and numbers, so it is not read"
            )
        return super().find_class(module, name)


def _restricted(file: Path) -> Any:  # noqa: ANN401
    try:
        import pandas as pd
    except ImportError as error:
        raise ConfigurationError(
            "reading .pkl needs pandas: pip install 'mixllm-integrations[data]'"
        ) from error
    del pd  # the pickle asks for its parts by name
    try:
        return _TableUnpickler(io.BytesIO(file.read_bytes())).load()
    except (ConfigurationError, OSError):
        raise
    except Exception as error:  # a damaged pickle raises almost anything
        raise ConfigurationError(
            f"{file.name} is not a pickled table ({type(error).__name__})"
        ) from error


def _turns(text: object) -> list[str]:
    """Return the turns of a conversation, written as a list in a string."""
    value = text
    if isinstance(text, str) and text.startswith("[") and text.endswith("]"):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
    if isinstance(value, list) and all(isinstance(turn, str) for turn in value):
        return value
    return [str(text)]


def _joined(text: object) -> str:
    return "\n".join(_turns(text))


def _counted(responses: list[object] | None, row: int) -> int | None:
    if responses is None or responses[row] is None:
        return None
    characters = len(_joined(responses[row]))
    return max(1, math.ceil(characters / _CHARACTERS_PER_TOKEN))


def _plain_number(value: object) -> object:
    """Return a number of numpy as one of Python, anything else as it is."""
    return value.item() if hasattr(value, "item") else value
