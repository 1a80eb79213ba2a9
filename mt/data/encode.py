"""Raw pairs to ids, chunk by chunk: which are dropped and why, and what the others become."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from mt.config.schema import SourceConfig, VocabularyConfig
from mt.data.pairs import Pair
from mt.special_tokens import BACK_TRANSLATED, END, MASK
from mt.vocabulary.learn import sample_rows
from mt.vocabulary.vocabulary import Vocabulary, normalize_source

CHUNK_PAIRS, _CHUNK_CHARACTERS = 1000, 1 << 20
REASONS = ("empty", "nul", "overlap", "too_long")
"""Why a pair is dropped; one that could go for several goes for the first."""
EMPTY_CORPUS_ADVICE = {
    "empty": "see the corpus in the recipe: is it the right file, or column?",
    "nul": "is it text?",
    "overlap": "train on other pairs, or set data.drop_overlap=false",
    "too_long": "raise data.max_length, or split the lines into sentences",
}
"""What to do about a corpus of which nothing is left for that reason."""
HeldOut = dict[str, set[str]]
"""Folded source to folded targets of the pairs that training must not see; under "" the folded
texts of which monolingual corpora must hold none, if there are such corpora."""
_INVISIBLE = ("Zs", "Zl", "Zp", "Cc", "Cf")


class EncodeOptions(NamedTuple):
    """How the lines of a corpus are encoded."""

    front: tuple[int, ...] = ()
    """Control pieces that stand before each source."""
    monolingual: bool = False
    """Both sides are the text of the one side there is."""


PARALLEL = EncodeOptions()


def encode_options(config: SourceConfig, known: Vocabulary) -> EncodeOptions:
    """How a corpus is encoded: what stands before its sources.

    Where the vocabulary names languages, the target's (Johnson et al. 2017, section 3); `<bt>`
    before a source that was translated back (Caswell et al. 2019, section 3.2); `<mask>` before
    monolingual text.
    """
    if config.side is None:
        made = (BACK_TRANSLATED,) if config.tag == "bt" else ()
        return EncodeOptions((*known.front(config.direction.target), *made))
    return EncodeOptions((MASK, *known.front(config.language)), True)


class Encoded(NamedTuple):
    """What became of a chunk."""

    reasons: list[str | None]
    """For each pair why it is dropped, None when it is kept."""
    source: list[list[int]]
    """The ids of the kept pairs, without `</s>`."""
    target: list[list[int]]


def is_blank(line: str) -> bool:
    """Whether nothing in a line is visible: spaces, controls, formats (U+200B, U+FEFF) only."""
    if "!" <= line[:1] <= "~":  # nearly all lines, decided at once
        return False
    return all(unicodedata.category(c) in _INVISIBLE for c in line)


def held_out_pairs(pairs: Iterable[Pair], monolingual: bool = False) -> HeldOut:
    """The pairs that training must not see; and their sides, where text of one side is learned."""
    held: HeldOut = {}
    for pair in pairs:
        source, target = normalize_source(pair.source or ""), normalize_source(pair.target or "")
        held.setdefault(source, set()).add(target)
        if monolingual:
            held.setdefault("", set()).update((source, target))
    return held


def chunk_pairs(pairs: Iterable[Pair]) -> Iterator[dict[str, list[str | None]]]:
    """Pairs in chunks of `source` and `target` lists, each of bounded size."""
    chunk: dict[str, list[str | None]] = {"source": [], "target": []}
    characters = 0
    for pair in pairs:
        chunk["source"].append(pair.source)
        chunk["target"].append(pair.target)
        characters += len(pair.source or "") + len(pair.target or "")
        if len(chunk["source"]) >= CHUNK_PAIRS or characters >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = {"source": [], "target": []}, 0
    if chunk["source"]:
        yield chunk


def sample_lines(chunks: Any, side: str, config: VocabularyConfig) -> Iterator[str]:
    """The lines of one side to learn a vocabulary from, spread over a data set of chunks."""
    lists = chunks.data[side]  # [chunks] lists of strings
    ends = np.cumsum([0, *(len(found.values) for found in _each_list(lists))])
    rows = sample_rows(int(ends[-1]), config)
    for found, first, end in zip(_each_list(lists), ends[:-1], ends[1:], strict=True):
        low, high = np.searchsorted(rows, (first, end))
        lines = found.values.take(rows[low:high] - first)
        yield from (line for line in lines.to_pylist() if line)


def _each_list(lists: Any) -> Iterator[Any]:
    """The items of a chunked Arrow array, not made Python objects of."""
    return (item for part in lists.iterchunks() for item in part)


def encode(
    sources: Sequence[str | None], targets: Sequence[str | None], known: Vocabulary,
    max_length: int, held: HeldOut, how: EncodeOptions = PARALLEL,
) -> Encoded:  # fmt: skip
    """Encode pairs and say which are dropped.

    Args:
        sources, targets: the raw sides, None where there is none.
        known: what cuts them.
        max_length: most ids of a side, `</s>` included.
        held: pairs that must not be among them.
        how: what their corpus wants.
    """
    if how.monolingual:
        sources = targets = [b if a is None else a for a, b in zip(sources, targets, strict=True)]
        texts = held.get("", set())
        held = {
            normalize_source(text): texts
            for text in sources
            if text and normalize_source(text) in texts
        }
    normal = known.normalise_source(line or "" for line in sources)
    reasons = _drop_reasons(sources, targets, normal, known, max_length, held)
    if any(reasons):
        kept = [row for row, reason in enumerate(reasons) if reason is None]
        normal, targets = [normal[row] for row in kept], [targets[row] for row in kept]
    else:
        kept = list(range(len(reasons)))
    source_ids = known.source.encode(normal)
    target_ids = known.target.encode(targets)  # type: ignore[arg-type] # none of them is None
    lengths = [*map(len, source_ids), *map(len, target_ids)]
    front = len(how.front)
    if lengths and not (min(lengths) and max(lengths) + front < max_length):  # `</s>` is one more
        for i in reversed(range(len(kept))):
            a, b = len(source_ids[i]), len(target_ids[i])
            if not a or not b or max(a + front, b) >= max_length:
                reasons[kept[i]] = "too_long" if a and b else "empty"
                del source_ids[i], target_ids[i]
    if front:
        source_ids = [[*how.front, *ids] for ids in source_ids]
    return Encoded(reasons, source_ids, target_ids)


def _drop_reasons(
    sources: Sequence[str | None], targets: Sequence[str | None], normal: Sequence[str],
    known: Vocabulary, max_length: int, held: HeldOut,
) -> list[str | None]:  # fmt: skip
    """Why pairs are dropped for their text, before it is cut.

    A line that is too long even in the longest pieces goes now, so that no time and memory go
    into cutting it. Only the normalised source decides: normalising can shorten a line.
    """
    most_source = (known.source.longest or math.inf) * max_length
    most_target = (known.target.longest or math.inf) * max_length
    reasons: list[str | None] = []
    for source, target, line in zip(sources, targets, normal, strict=True):
        if not source or not target or is_blank(source) or is_blank(target):
            reasons.append("empty")
        elif "\0" in source or "\0" in target:
            reasons.append("nul")
        elif (
            held
            and (normalize_source(line) if known.kind == "whitespace" else line) in held
            and (normalize_source(target) in held[normalize_source(line)])
        ):
            reasons.append("overlap")
        elif len(line) > most_source or len(target) > most_target:
            reasons.append("too_long")
        else:
            reasons.append(None)
    return reasons


def to_row(encoded: Encoded, dtype: str) -> dict[str, Any]:
    """A chunk as flat bytes and counts, so that no lists enter Arrow.

    The keys are `source_tokens`, `target_tokens` (ids end to end, of `dtype`, `</s>` added),
    `source_lengths`, `target_lengths` (int32), `pairs`, and the number dropped for each reason.
    """
    dropped = Counter(reason for reason in encoded.reasons if reason)
    row: dict[str, Any] = {"pairs": len(encoded.reasons)}
    row |= {reason: dropped[reason] for reason in REASONS}
    for side, ids in (("source", encoded.source), ("target", encoded.target)):
        lengths = np.fromiter(map(len, ids), np.int32, len(ids)) + np.int32(1)
        ends = np.cumsum(lengths)
        tokens = np.full(int(ends[-1]) if len(ends) else 0, END, dtype)
        text = np.ones(len(tokens), bool)
        text[ends - 1] = False
        tokens[text] = np.array(list(chain.from_iterable(ids)), dtype)
        row[f"{side}_tokens"], row[f"{side}_lengths"] = tokens.tobytes(), lengths.tobytes()
    return row


def encode_chunk(
    chunk: dict[str, Any], known: Vocabulary, max_length: int, held: HeldOut, dtype: str,
    treatments: Sequence[EncodeOptions],
) -> dict[str, Any]:  # fmt: skip
    """`encode` and `to_row` of a chunk with its `corpus`, `source` and `target`: a worker's work.

    `treatments` has one for each corpus.
    """
    how = treatments[chunk["corpus"]]
    return to_row(encode(chunk["source"], chunk["target"], known, max_length, held, how), dtype)
