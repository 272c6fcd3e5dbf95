"""Reads RouterBench, which is published as a pickled table of pandas.

A pickle may run any code when it is read. Here nothing that it names is run: see
`pickled_table`. There is no switch to trust it.
"""

import ast
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mixllm_integrations.benchmark.pickled_table import pickled_columns
from mixllm_integrations.core.errors import ConfigurationError

__all__ = ["HUB_FILE", "HUB_ID", "download", "read_routerbench"]

HUB_ID = "withmartian/routerbench"
HUB_FILE = "routerbench_0shot.pkl"

_COST, _RESPONSE = "|total_cost", "|model_response"
_CHARACTERS_PER_TOKEN = 4
_SECONDS_TO_REACH = 4.0
_LONGEST_LIST = 1_000_000  # characters; reading one takes a hundred times as much


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
        If the pickle holds anything but a plain table, or the table is not one
        of RouterBench.
    """
    columns = _columns(file)
    models = [name.removesuffix(_COST) for name in columns if name.endswith(_COST)]
    lacking = {"sample_id", "prompt", "eval_name", *models} - set(columns)
    if lacking or not models:
        raise ConfigurationError(
            f"{file.name} is not a table of RouterBench: it lacks the columns "
            f"{sorted(lacking) or ['<model>' + _COST]}"
        )
    for row in range(min(map(len, columns.values()))):
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
                    "quality": columns[model][row],
                    "cost": columns[model + _COST][row],
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


def _columns(file: Path) -> dict[str, list[Any]]:
    try:
        return pickled_columns(file.read_bytes())
    except (ConfigurationError, OSError):
        raise
    except Exception as error:  # a damaged pickle raises almost anything
        raise ConfigurationError(
            f"{file.name} is not a pickled table ({type(error).__name__})"
        ) from error


def _turns(text: object) -> list[str]:
    """Return the turns of a conversation, written as a list in a string."""
    value = text
    if (
        isinstance(text, str)
        and text.startswith("[")
        and text.endswith("]")
        and len(text) <= _LONGEST_LIST
    ):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
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
