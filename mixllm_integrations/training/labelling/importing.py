"""Answers that a log holds with their grades, as records: nobody is asked."""

from collections.abc import Collection, Iterable, Mapping

from mixllm_integrations.training.labelling.logs import LoggedCall
from mixllm_integrations.training.labelling.records_file import RecordsFile

__all__ = ["import_calls"]


def import_calls(
    calls: Iterable[LoggedCall],
    file: RecordsFile,
    *,
    names: Mapping[str, str] | None = None,
    wanted: Collection[str] | None = None,
) -> int:
    """Write what a log knows; what the file has already stays as it is.

    Parameters
    ----------
    calls
        Of a log.
    file
        Where the records go.
    names
        From the log's models to candidates; others are passed over. ``None``:
        candidates are called as the models.
    wanted
        Digests of the only prompts that count; ``None``: all.

    Returns
    -------
    int
        How many records were written; several of one prompt and candidate all
        count.
    """
    before = set(file.records)
    count = 0
    for call in calls:
        name = call.model if names is None else names.get(call.model)
        digest = call.item.digest
        if name is None or (wanted is not None and digest not in wanted):
            continue
        record = call.record(name)
        if record is not None and (digest, name) not in before:
            file.append(record, query_id=digest, graded_by="")
            count += 1
    return count
