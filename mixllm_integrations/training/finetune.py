"""Fine-tune the static encoder, so that queries of one domain lie together.

``python -m mixllm_integrations.training.finetune RECORDS -o FOLDER`` reads
queries with tags and writes an encoder that `StaticEncoder.load` reads. No
label of quality is used. Needs the `train` extra; seconds on a CPU.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as save_safetensors

from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.errors import ConfigurationError, MixLLMError
from mixllm_integrations.core.ngrams import fold_of_rows
from mixllm_integrations.core.tagging import group_tags
from mixllm_integrations.core.wordpieces import shipped_folder, shipped_tokenizer
from mixllm_integrations.training.build_encoder import quantise, write_encoder
from mixllm_integrations.training.separation import (
    Course,
    Epoch,
    Loss,
    train_vectors,
)

__all__ = ["finetune_encoder", "main", "read_tagged_queries", "save_encoder"]

_HELD_OUT = 10  # one part in so many judges when to stop


def finetune_encoder(
    queries: Sequence[str],
    tags: Sequence[tuple[str, ...]],
    *,
    encoder: StaticEncoder | None = None,
    loss: Loss = "paper",
    n_domains: int = 20,
    epochs: int = 15,
    learning_rate: float = 0.03,
    pull: float = 0.002,
    seed: int = 0,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> StaticEncoder:
    """Return an encoder in whose space the domains of some queries lie apart.

    Only the vectors of pieces that at least three queries hold are moved; all
    others stay where they are. Each step pulls the moved ones back a little,
    and a tenth of the queries is held out to end the training where the
    domains of *new* queries lie apart best.

    Parameters
    ----------
    queries
        Training queries; of copies of one text the first counts.
    tags
        Tags of each. A query without tags is left out.
    encoder
        Where to start from; the shipped one by default. It is not changed.
    loss
        ``"paper"`` for `domain_loss`, or ``"batch_all_triplet"`` for the loss
        of that name in sentence-transformers.
    n_domains
        The most domains that the tags are grouped into.
    epochs
        The most passes over the queries.
    learning_rate
        Of Adam, relative to the typical size of a number in the vectors.
    pull
        Share of the way back to the start that each step takes, in [0, 1].
    seed
        Decides batches, clusters and who is held out. The same seed gives the
        same encoder.
    on_epoch
        Called before the first pass and after each.

    Raises
    ------
    ConfigurationError
        If the `train` extra is missing, there are fewer than two domains or
        fewer than 20 queries with tags, or a setting is out of its range.

    Notes
    -----
    Source: MixLLM Eq. 1–3, there for a transformer. What is held still, the
    pull and the early stop are our choice: a static encoder has millions of
    weights for some thousand queries.
    """
    _check_settings(queries, tags, loss, epochs, learning_rate, pull)
    encoder = StaticEncoder.load() if encoder is None else encoder
    ids, shares, n_found = _lesson(queries, tags, encoder, n_domains, seed)
    if n_found < 2:
        raise ConfigurationError(
            f"fine-tuning needs tagged queries of two domains at least, not {n_found}; "
            "tag the records, or raise n_domains"
        )
    if len(ids) < 2 * _HELD_OUT:
        raise ConfigurationError(
            f"fine-tuning needs {2 * _HELD_OUT} different queries with tags, not "
            f"{len(ids)}"
        )
    start = encoder._weights  # noqa: SLF001
    held_out = fold_of_rows(len(ids), n_folds=_HELD_OUT, seed=seed) == 0
    course = Course(
        ids, shares, held_out, start, epochs, learning_rate, pull, seed, on_epoch
    )
    vectors, revision = _settled(train_vectors(course, loss))
    name = f"{encoder.id}+{loss.replace('_', '-')}"
    return StaticEncoder(vectors, encoder.tokenizer, id=name, revision=revision)


def save_encoder(encoder: StaticEncoder, folder: str | Path) -> StaticEncoder:
    """Write an encoder to a folder that `StaticEncoder.load` reads.

    Parameters
    ----------
    encoder
        From `finetune_encoder`.
    folder
        Made if it is not there.

    Returns
    -------
    StaticEncoder
        The same one, which now knows its folder: a router that is saved with
        it finds it there again.
    """
    if encoder.tokenizer is shipped_tokenizer():
        text = (shipped_folder() / "tokenizer.json").read_text("utf-8")
    else:
        text = encoder.tokenizer._tokenizer.to_str()  # noqa: SLF001
    about = {
        "licence": "Apache-2.0",
        "finetuned": True,
        "command": "python -m mixllm_integrations.training.finetune",
    }
    vectors = encoder._weights  # noqa: SLF001
    written = write_encoder(Path(folder), vectors, text, name=encoder.id, about=about)
    revision = json.loads((written / "encoder.json").read_text("utf-8"))["revision"]
    return StaticEncoder(
        vectors, encoder.tokenizer, id=encoder.id, revision=revision, folder=written
    )


def read_tagged_queries(
    path: str | Path,
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the distinct queries of a file of records, and their tags.

    Parameters
    ----------
    path
        ``.parquet`` (needs the `data` extra) or one JSON object per line, with
        ``query`` and ``tags`` (a list) or ``domain`` (a text).

    Raises
    ------
    ConfigurationError
        If the file cannot be read; no query is shown.
    """
    file = Path(path)
    found: dict[str, dict[str, None]] = {}
    for number, row in _rows(file):
        try:
            tags = row.get("tags", row.get("domain"))
            own = (tags,) if isinstance(tags, str) else tuple(tags or ())
            found.setdefault(str(row["query"]), {}).update(dict.fromkeys(own))
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{file.name}, row {number} has no query with tags"
            ) from error
    return list(found), [tuple(own) for own in found.values()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Fine-tune on a file of records and write the encoder; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m mixllm_integrations.training.finetune",
        description="Fine-tune the static encoder on queries with tags.",
    )
    parser.add_argument("records", type=Path, help=".jsonl or .parquet")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder")
    parser.add_argument("--encoder", help="folder to start from (default: shipped)")
    parser.add_argument("--loss", choices=get_args(Loss), default="paper")
    parser.add_argument("--n-domains", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--learning-rate", type=float, default=0.03)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        queries, tags = read_tagged_queries(options.records)
        encoder = finetune_encoder(
            queries,
            tags,
            encoder=StaticEncoder.load(options.encoder),
            loss=options.loss,
            n_domains=options.n_domains,
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            seed=options.seed,
            on_epoch=lambda e: print(
                f"pass {e.number}: loss {e.loss:.4f}, separability of the queries "
                f"held out {e.separability:+.4f}",
                file=sys.stderr,
            ),
        )
        saved = save_encoder(encoder, options.output)
    except (MixLLMError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.output}: {saved.id}, revision {saved.revision}")
    return 0


def _check_settings(
    queries: Sequence[str],
    tags: Sequence[tuple[str, ...]],
    loss: str,
    epochs: int,
    learning_rate: float,
    pull: float,
) -> None:
    if len(queries) != len(tags):
        raise ConfigurationError(f"{len(queries)} queries but tags of {len(tags)}")
    if loss not in get_args(Loss):
        raise ConfigurationError(f"loss must be one of {get_args(Loss)}, not {loss!r}")
    if epochs < 1 or not learning_rate > 0:
        raise ConfigurationError(
            f"epochs and learning_rate must be positive, not {epochs!r} and "
            f"{learning_rate!r}"
        )
    if not 0 <= pull <= 1:
        raise ConfigurationError(f"pull must lie in [0, 1], not {pull!r}")


def _lesson(
    queries: Sequence[str],
    tags: Sequence[tuple[str, ...]],
    encoder: StaticEncoder,
    n_domains: int,
    seed: int,
) -> tuple[list[NDArray[np.int32]], NDArray[np.float32], int]:
    """Return pieces and domain shares of the distinct, tagged, readable queries."""
    place: dict[str, int] = {}
    for row, query in enumerate(queries):
        place.setdefault(query, row)
    rows = list(place.values())
    _, shares = group_tags(
        [tags[i] for i in rows], encoder, n_domains=n_domains, seed=seed
    )
    ids = encoder.tokenizer.ids([queries[i] for i in rows])
    kept = [i for i, own in enumerate(ids) if own.size and shares[i].any()]
    used = shares[kept].astype(np.float32)
    return [ids[i] for i in kept], used, int((used.sum(axis=0) > 0).sum())


def _settled(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], str]:
    """Return the vectors as a file holds them, and the revision it will have.

    Rounding them again changes no bit: fl(fl(127·s) / 127) = s for every s that
    is itself some fl(x / 127), tried for all 2²³ mantissas of x.
    """
    rows, scale = quantise(vectors)
    weights = save_safetensors({"scale": scale, "weights": rows})
    return rows * scale[:, None], hashlib.sha256(weights).hexdigest()[:12]


def _rows(file: Path) -> Iterator[tuple[int, Any]]:
    """Yield the number and the content of each row."""
    number = 0
    try:
        if file.suffix == ".parquet":
            from pyarrow import parquet

            with parquet.ParquetFile(file) as source:
                names = set(source.schema_arrow.names)
                wanted = [n for n in ("query", "tags", "domain") if n in names]
                batches = source.iter_batches(columns=wanted)
                rows = chain.from_iterable(batch.to_pylist() for batch in batches)
                yield from enumerate(rows, start=1)
            return
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, json.loads(line)
    except ImportError as error:
        raise ConfigurationError(
            "a parquet file needs pyarrow: pip install 'mixllm-integrations[data]'"
        ) from error
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{file.name}, row {number} is no JSON") from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{str(file)!r} cannot be read: {type(error).__name__}"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
