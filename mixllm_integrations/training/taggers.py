"""Tags for training queries that have none: by a language model, or by clusters.

Tags become the domains of a router (`core.tagging`), so that is the whole use::

    tagger = LLMTagger(ChatOpenAI(model="gpt-4o-mini"), cache="tags")
    router.fit(tag_records(records, tagger))

No tagger runs when a query is routed.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from dataclasses import replace as with_fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixllm_integrations.core.checks import number_between
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.tagging import Tagger
from mixllm_integrations.core.types import RoutingRecord
from mixllm_integrations.core.wordpieces import checked_texts, clip_text
from mixllm_integrations.training.cluster_tagger import ClusterTagger
from mixllm_integrations.training.progress import DelayedBar
from mixllm_integrations.training.tag_answers import tidy_tags
from mixllm_integrations.training.tag_asking import (
    INSTRUCTIONS,
    Portion,
    Work,
    messages_for,
    model_name,
    scope_of,
)
from mixllm_integrations.training.tag_cache import TagCache

if TYPE_CHECKING:
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import AIMessage
    from langchain_core.runnables import Runnable, RunnableConfig

__all__ = ["ClusterTagger", "LLMTagger", "tag_records"]

_LOG = logging.getLogger(__name__)
# If so many requests all fail, no further one is sent.
_REQUESTS_AT_ONCE, _REQUESTS_PER_SEAT = 256, 16
_LONGEST_WAIT_SECONDS = 60.0
_LIMITS = (
    *("max_concurrency", "queries_per_request", "max_tags", "min_count"),
    "max_attempts",
)


@dataclass(frozen=True, slots=True)
class LLMTagger:
    """Asks a chat model what each query is about and wants done.

    Answers are kept on disk as they come, so a run that was stopped goes on
    where it was, and nothing is paid for twice. A query that gets no usable
    answer has no tags; such queries are counted in the log, never quoted.

    Parameters
    ----------
    model
        Any LangChain chat model, also with arguments bound to it. A small one
        will do; set its temperature to 0.
    cache
        Folder for the answers, made if it is not there; ``None``: nothing is
        kept. The queries are not stored, only digests; the tags are.
    max_concurrency
        How many requests may be under way at once.
    queries_per_request
        How many queries to ask about in one request. Several save input
        tokens; what the answer leaves out is asked again singly.
    max_tags
        How many tags a query keeps, the first ones of the answer.
    min_count
        Tags of fewer of the queries than this are dropped; 1 keeps all.
    max_attempts
        How often to ask about a query, the first time included, when the model
        fails or its answer cannot be read.
    wait_seconds
        Pause before the second attempt, doubled from one to the next up to
        60 s, with as much again at random.
    instructions
        What tags are wanted, instead of the built-in wording; the form of the
        answer is added to it.
    name
        What the cache calls the model; ``None``: what it calls itself.
    progress
        Whether to show a bar; ``None``: on a terminal, if it takes over a
        second.
    config
        For each request, for example ``{"callbacks": [...]}``.

    Raises
    ------
    ConfigurationError
        If `model` is no chat model, or a number cannot be used.

    Notes
    -----
    Source: InsTag (Lu et al., 2023) for the open set of tags, the filter of
    rare ones and the merging of spellings, as MixLLM uses it; the wording and
    the rest are our choice. Failed queries are tried again together after a
    common pause, since what stops one request mostly stops all.

    Examples
    --------
    >>> from mixllm_integrations.testing import ScriptedChatModel
    >>> model = ScriptedChatModel(answers=['[{"tag": "Arithmetic"}]'])
    >>> LLMTagger(model).tag(["What is 2 + 2?", " "])
    [('arithmetic',), ()]
    """

    model: "Runnable[LanguageModelInput, AIMessage]" = field(repr=False)
    _: KW_ONLY
    cache: str | Path | None = None
    max_concurrency: int = 8
    queries_per_request: int = 1
    max_tags: int = 8
    min_count: int = 1
    max_attempts: int = 3
    wait_seconds: float = 1.0
    instructions: str = field(default=INSTRUCTIONS, repr=False)
    name: str | None = None
    progress: bool | None = None
    config: "RunnableConfig | None" = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not hasattr(self.model, "ainvoke"):
            kind = type(self.model).__name__
            raise ConfigurationError(
                f"model must be a LangChain chat model, not a {kind}"
            )
        for limit in _LIMITS:
            number = number_between(
                getattr(self, limit), limit, low=1.0, high_is_allowed=False
            )
            if number != int(number):
                raise ConfigurationError(f"{limit} must be whole, not {number!r}")
        number_between(self.wait_seconds, "wait_seconds", high_is_allowed=False)

    def tag(self, queries: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the tags of each query; an empty tuple where there are none.

        Parameters
        ----------
        queries
            In any order; a copy is asked about once. Of a long one the model
            reads the first 6,000 and the last 2,000 characters.

        Returns
        -------
        list of tuple of str
            Normalised tags, at most `max_tags`, the most telling first.

        Raises
        ------
        TypeError
            If a query is no string.
        ConfigurationError, StateFormatError
            If the cache cannot be used.
        """
        from tenacity import Retrying

        texts = _readable(queries)
        with self._work(texts) as work:
            for portion in work.portions():
                Retrying(**self._patience())(self._ask, portion)
        return self._tidied(texts, work)

    async def atag(self, queries: Sequence[str]) -> list[tuple[str, ...]]:
        """Do the same without blocking; requests stop when it is cancelled.

        Parameters
        ----------
        queries
            As for `tag`.
        """
        from tenacity import AsyncRetrying

        texts = _readable(queries)
        with self._work(texts) as work:
            for portion in work.portions():
                await AsyncRetrying(**self._patience())(self._aask, portion)
        return self._tidied(texts, work)

    def _ask(self, portion: Portion) -> bool:
        from langchain_core.runnables.config import ContextThreadPoolExecutor

        def one(request: list[str]) -> None:
            answer: Any
            try:
                messages = messages_for(request, self.instructions)
                answer = self.model.invoke(messages, self.config)
            except Exception as error:  # noqa: BLE001 - a model may raise any
                answer = error
            portion.take(request, answer)

        # An answer is kept by the thread that got it: if this is interrupted, no
        # further request is sent, and those under way still count.
        with ContextThreadPoolExecutor(max_workers=int(self.max_concurrency)) as pool:
            sent = [pool.submit(one, request) for request in portion.requests()]
            try:
                done, _ = wait(sent, return_when=FIRST_EXCEPTION)
                for request in done:
                    request.result()
            finally:
                for request in sent:
                    request.cancel()
        return portion.is_finished()

    async def _aask(self, portion: Portion) -> bool:
        import asyncio

        seats = asyncio.Semaphore(int(self.max_concurrency))

        async def one(request: list[str]) -> None:
            async with seats:
                answer: Any
                try:
                    messages = messages_for(request, self.instructions)
                    answer = await self.model.ainvoke(messages, self.config)
                except Exception as error:  # noqa: BLE001 - a model may raise any
                    answer = error
            portion.take(request, answer)

        async with asyncio.TaskGroup() as group:
            for request in portion.requests():
                group.create_task(one(request))
        return portion.is_finished()

    def _patience(self) -> dict[str, Any]:
        from tenacity import (
            retry_if_result,
            stop_after_attempt,
            wait_exponential,
            wait_random,
        )

        pause = wait_exponential(self.wait_seconds, max=_LONGEST_WAIT_SECONDS)
        return {
            "stop": stop_after_attempt(int(self.max_attempts)),
            "wait": pause + wait_random(0, self.wait_seconds),
            "retry": retry_if_result(lambda is_finished: not is_finished),
            "retry_error_callback": lambda _: None,
        }

    @contextmanager
    def _work(self, texts: Sequence[str]) -> Iterator[Work]:
        distinct = list(dict.fromkeys(text for text in texts if text))
        requests = max(_REQUESTS_AT_ONCE, _REQUESTS_PER_SEAT * self.max_concurrency)
        scope = scope_of(self.name or model_name(self.model), self.instructions)
        with (
            TagCache(self.cache, scope=scope) as cache,
            DelayedBar(
                len(distinct), label="tagging queries", shown=self.progress
            ) as bar,
        ):
            yield Work(
                distinct,
                cache=cache,
                bar=bar,
                queries_per_request=int(self.queries_per_request),
                portion=int(requests * self.queries_per_request),
            )

    def _tidied(self, texts: Sequence[str], work: Work) -> list[tuple[str, ...]]:
        if failed := work.failures.total():
            reasons = (f"{why} × {n}" for why, n in work.failures.most_common() if n)
            _LOG.warning(
                "%d of %d queries have no tags: %s; tag them again to ask again",
                failed,
                len(work.found) + failed,
                ", ".join(reasons),
            )
        known = list(work.found)
        kept = [work.found[text][: int(self.max_tags)] for text in known]
        tidy = tidy_tags(kept, min_count=int(self.min_count))
        tags_of = dict(zip(known, tidy, strict=True))
        return [tags_of.get(text, ()) for text in texts]


def tag_records(
    records: Iterable[RoutingRecord], tagger: Tagger, *, replace: bool = False
) -> list[RoutingRecord]:
    """Return records with the tags that a tagger gives their queries.

    Parameters
    ----------
    records
        In any order; they are not changed.
    tagger
        Asked once, about all distinct queries that need tags.
    replace
        Whether to tag records anew that have tags. Else a query that has tags
        in any record is left as it is: a router takes all tags of a query
        together.

    Returns
    -------
    list of RoutingRecord
        In the same order.

    Raises
    ------
    ConfigurationError
        If the tagger does not return one row per query.

    Examples
    --------
    >>> from mixllm_integrations.core.tagging import RecordTagger
    >>> records = [RoutingRecord("2+2?", "small", 1.0)]
    >>> tag_records(records, RecordTagger({"2+2?": ("sums",)}))[0].tags
    ('sums',)
    """
    given = list(records)
    tagged = set() if replace else {r.query for r in given if r.tags}
    queries = [q for q in dict.fromkeys(r.query for r in given) if q not in tagged]
    rows = tagger.tag(queries) if queries else []
    if len(rows) != len(queries):
        raise ConfigurationError(
            f"the tagger returned {len(rows)} rows of tags for {len(queries)} queries"
        )
    tags_of = dict(zip(queries, map(tuple, rows), strict=True))
    return [
        with_fields(record, tags=tags_of[record.query])
        if record.query in tags_of
        else record
        for record in given
    ]


def _readable(queries: Sequence[str]) -> list[str]:
    """Return what the model may read of each query; nothing of a blank one."""
    texts = [clip_text(query) for query in checked_texts(queries)]
    return [text if text.strip() else "" for text in texts]
