"""What a language model says when it is asked for tags, made into tags.

Models wrap JSON in fences and prose, leave commas and brackets open, answer
with plain lists, or not at all. Nothing here raises on any text.
"""

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

__all__ = ["normalise_tag", "read_numbered", "read_tags", "tidy_tags"]

Tags = tuple[str, ...]

_LONGEST_ANSWER, _MOST_STARTS = 20_000, 200
_MOST_TAGS, _MOST_WORDS, _LONGEST_TAG = 32, 6, 60
_DEEPEST, _MOST_PLAIN_WORDS = 6, 4
_THOUGHT = re.compile(
    r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE
)
_OPEN_COMMA = re.compile(r",(\s*[\]}])")
_KEYED = re.compile(
    r"""["']?\btags?["']?\s*[:=]\s*["']([^"'\n\]]{1,80})["']""", re.IGNORECASE
)
_QUOTED = re.compile(r"""[\[,(]\s*["']([^"'\n]{1,80})["'](?=\s*[,\])])""")
_BULLET = re.compile(r"^\s*(?:[-*•–]+|\(?\d{1,2}[.):])\s+")
_LABEL = re.compile(r"^\W*(?:tags?|topics?|intentions?)\W*[:=]\s*", re.IGNORECASE)
_EXPLAINED = re.compile(r"\s[-–—]+\s|[:(]\s?")
_APART = re.compile(r"[,;|\n]")
# A line with one of these talks to somebody; it is no list of tags.
_SPEECH = frozenset(
    (
        *(
            "i",
            "i'm",
            "i'd",
            "i'll",
            "i've",
            "you",
            "your",
            "we",
            "let's",
            "it",
            "it's",
        ),
        *("is", "are", "am", "was", "can", "cannot", "can't", "don't", "have", "has"),
        *("would", "should", "could", "here", "this", "that", "these", "those"),
        *("sorry", "sure", "please"),
    )
)
_NO_TAG = frozenset(
    (
        *("none", "null", "nil", "unknown", "n/a", "na", "undefined", "untagged"),
        *("tag", "tags", "explanation"),
    )
)
_TAG_KEYS = ("tag", "name", "label", "topic")
_OTHER_KEYS = frozenset(("explanation", "reason", "error", "message", "description"))
_NUMBER_KEYS = ("number", "id", "index", "text", "query")
_INSIDE = "+#.&/'"


def normalise_tag(text: str) -> str:
    """Return a tag in the one form that tags are compared in.

    Lower case, words with single spaces between; what is neither letter nor
    number goes, but for signs inside a word ("c++", "node.js", "tcp/ip").

    Parameters
    ----------
    text
        Any text.

    Returns
    -------
    str
        The tag; empty if the text is none: no letter in it, longer than 60
        characters or 6 words, or a word such as "none".

    Notes
    -----
    Source: InsTag (Lu et al., 2023) for lower case and special characters;
    the limits are our choice.

    Examples
    --------
    >>> normalise_tag("  **Time-Series_Analysis**. "), normalise_tag("#C++ ")
    ('time series analysis', 'c++')
    """
    text = unicodedata.normalize("NFKC", text[: 4 * _LONGEST_TAG])
    text = unicodedata.normalize("NFKC", text.lower())
    kept = "".join(
        sign if sign in _INSIDE or unicodedata.category(sign)[0] in "LMN" else " "
        for sign in text
    )
    cut = (word.lstrip(_INSIDE).rstrip(".&/'") for word in kept.split())
    words = [word for word in cut if any(map(str.isalnum, word))]
    tag = " ".join(words)
    usable = 0 < len(words) <= _MOST_WORDS and len(tag) <= _LONGEST_TAG
    return tag if usable and tag not in _NO_TAG and _has_letter(tag) else ""


def read_tags(answer: str) -> Tags | None:
    r"""Return the tags in an answer about one text.

    Parameters
    ----------
    answer
        What the model said.

    Returns
    -------
    tuple of str or None
        Normalised, without duplicates, at most 32, in the answer's order;
        empty if the answer is an empty list; ``None`` if it cannot be read.

    Examples
    --------
    >>> read_tags('Sure! ```json\n[{"tag": "Linear Algebra"}, "proofs",]\n```')
    ('linear algebra', 'proofs')
    >>> read_tags("Tags: poetry, birds"), read_tags("I cannot help with that.")
    (('poetry', 'birds'), None)
    """
    bare = _bare(answer)
    values = list(_json_values(bare))
    # Beside them, what stands in JSON that was cut off
    whole = (
        text for value in [*values, *_KEYED.findall(bare)] for text in _strings(value)
    )
    if tags := _normalised(whole):
        return tags
    if values:
        return () if all(_is_empty(value) for value in values) else None
    return _normalised(_QUOTED.findall(bare)) or _normalised(_plain(bare)) or None


def read_numbered(answer: str, count: int) -> list[Tags | None]:
    """Return the tags of each text from an answer about several.

    Parameters
    ----------
    answer
        What the model said: JSON that maps the texts' numbers to their tags, a
        list of objects with a number each, or one list of tags per text.
    count
        How many texts there were; they are numbered from 1.

    Returns
    -------
    list
        One item per text; ``None`` where the answer says nothing usable.

    Examples
    --------
    >>> read_numbered('{"1": ["Algebra"], "3": "poetry"}', 3)
    [('algebra',), None, ('poetry',)]
    """
    found: dict[int, Tags | None] = {}
    for value in _json_values(_bare(answer)):
        for number, said in _numbered(value, count):
            if 1 <= number <= count and not found.get(number):
                tags = _normalised(_strings(said))
                found[number] = tags if tags or _is_empty(said) else None
    return [found.get(number) for number in range(1, count + 1)]


def tidy_tags(rows: Sequence[Tags], *, min_count: int = 1) -> list[Tags]:
    """Merge spellings of one tag, then drop the tags that are rare.

    Spellings that differ in spaces or a plural's s become the most frequent
    of them.

    Parameters
    ----------
    rows
        Tags of each query.
    min_count
        Tags of fewer queries than this are dropped; 1 keeps all.

    Returns
    -------
    list of tuple of str
        One per row, without duplicates.

    Notes
    -----
    Source: InsTag (Lu et al., 2023) for the filter and for merging by stems;
    there merging by embeddings follows, which here `group_tags` does when it
    makes domains.

    Examples
    --------
    >>> tidy_tags([("word problem",), ("word problems",), ("word problems", "sums")])
    [('word problems',), ('word problems',), ('word problems', 'sums')]
    >>> tidy_tags([("sums",), ("sums", "law")], min_count=2)
    [('sums',), ('sums',)]
    """
    counts = Counter(tag for row in rows for tag in dict.fromkeys(row))
    spellings: dict[str, list[str]] = defaultdict(list)
    for tag in sorted(counts, key=lambda tag: (-counts[tag], tag)):
        spellings["".join(map(_stem, tag.split()))].append(tag)
    leader = {tag: group[0] for group in spellings.values() for tag in group}
    merged = [tuple(dict.fromkeys(leader[tag] for tag in row)) for row in rows]
    kept = Counter(tag for row in merged for tag in row)
    return [tuple(t for t in row if kept[t] >= min_count) for row in merged]


def _stem(word: str) -> str:
    plural = len(word) > 3 and word.endswith("s") and not word.endswith("ss")
    return word[:-1] if plural else word


def _has_letter(tag: str) -> bool:
    return any(map(str.isalpha, tag))


def _bare(answer: str) -> str:
    """Return an answer without the thoughts some models put before it."""
    return _THOUGHT.sub(" ", answer[:_LONGEST_ANSWER]).strip()


def _json_values(text: str) -> Iterator[Any]:
    """Yield every JSON list and object that stands somewhere in a text."""
    decoder = json.JSONDecoder()
    text = _OPEN_COMMA.sub(r"\1", text)
    end = 0
    starts = (match.start() for match in re.finditer(r"[\[{]", text))
    for start, _ in zip(starts, range(_MOST_STARTS), strict=False):
        if start < end:
            continue
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        yield value


def _strings(value: object, depth: int = 0) -> Iterator[str]:
    """Yield what may be tags in a JSON value, whatever its form."""
    if isinstance(value, str):
        yield from _APART.split(value)
    elif depth > _DEEPEST:
        return
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, depth + 1)
    elif isinstance(value, dict):
        yield from _of_object(value, depth)


def _of_object(value: dict[str, Any], depth: int) -> Iterator[str]:
    known = {key.lower().strip(): item for key, item in value.items()}
    for key in _TAG_KEYS:
        if isinstance(known.get(key), str):
            yield from _APART.split(known[key])
            return
    nested = [v for key, v in known.items() if isinstance(v, list | dict)]
    nested += [known[k] for k in ("tags", "topics") if isinstance(known.get(k), str)]
    if nested:
        yield from _strings(nested, depth + 1)
    elif all(isinstance(item, str) for item in known.values()):
        # A tag each, with what it means
        yield from (key for key in known if key not in _OTHER_KEYS)


def _is_empty(value: object, depth: int = 0) -> bool:
    if isinstance(value, dict) and depth <= _DEEPEST:
        return all(_is_empty(item, depth + 1) for item in value.values())
    return value is None or value in ([], "")


def _numbered(value: object, count: int, depth: int = 0) -> Iterator[tuple[int, Any]]:
    """Yield numbers of texts, and what is said of each."""
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        own = next((n for key in _NUMBER_KEYS if (n := _number(value.get(key)))), 0)
        if own:
            yield own, {k: v for k, v in value.items() if k not in _NUMBER_KEYS}
            return
        for key, item in value.items():
            if number := _number(key.lower().removeprefix("text")):
                yield number, item
            else:
                yield from _numbered(item, count, depth + 1)
    elif isinstance(value, list):
        if len(value) == count and all(isinstance(item, list) for item in value):
            yield from enumerate(value, start=1)
            return
        for item in value:
            if isinstance(item, dict):
                yield from _numbered(item, count, depth + 1)


def _number(value: object) -> int:
    """Return a number of a text, 0 if this is none."""
    text = str(value).strip(" #_") if isinstance(value, int | str) else ""
    return int(text) if re.fullmatch(r"[0-9]{1,4}", text) else 0


def _plain(text: str) -> Iterator[str]:
    """Yield what may be tags in lines of text, or between commas."""
    for line in text.splitlines():
        written = _LABEL.sub("", _BULLET.sub("", line)).strip()
        words = written.lower().replace("’", "'").split()
        is_speech = any(word.strip(".,!?:") in _SPEECH for word in words)
        if written.endswith((":", "?", "!")) or is_speech:
            continue
        pieces = _APART.split(_EXPLAINED.split(written)[0])
        yield from (p for p in pieces if len(p.split()) <= _MOST_PLAIN_WORDS)


def _normalised(texts: Iterable[str]) -> Tags:
    tags: dict[str, None] = {}
    for text in texts:
        if tag := normalise_tag(text):
            tags[tag] = None
        if len(tags) == _MOST_TAGS:
            break
    return tuple(tags)
