"""Raw pairs to ids, chunk by chunk: which are dropped and why, and what the others become."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from mt.contracts import END, Pair
from mt.vocabulary import Config, Cutter, Vocabulary, fold, sample_rows

CHUNK_PAIRS, _CHUNK_CHARACTERS = 1000, 1 << 20
REASONS = ("empty", "nul", "overlap", "too_long")
"""Why a pair is dropped; one that could go for several goes for the first."""
Held = dict[str, set[str]]
"""Folded source to folded targets of the pairs that training must not see."""
_INVISIBLE = ("Zs", "Zl", "Zp", "Cc", "Cf")


class Encoded(NamedTuple):
    """What became of a chunk."""

    reasons: list[str | None]
    """For each pair why it is dropped, None when it is kept."""
    source: list[list[int]]
    """The ids of the kept pairs, each list ending in `</s>`."""
    target: list[list[int]]


def is_blank(line: str) -> bool:
    """Whether nothing in a line is visible: spaces, controls, formats (U+200B, U+FEFF) only."""
    return all(unicodedata.category(c) in _INVISIBLE for c in line)


def held_out(pairs: Iterable[Pair]) -> Held:
    """The pairs that training must not see."""
    held: Held = {}
    for pair in pairs:
        held.setdefault(fold(pair.source or ""), set()).add(fold(pair.target or ""))
    return held


def chunked(pairs: Iterable[Pair]) -> Iterator[dict[str, list[str | None]]]:
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


def sampled(chunks: Any, side: str, config: Config) -> Iterator[str]:
    """The lines of one side to learn a vocabulary from, spread over a data set of chunks."""
    lists = chunks.data[side]  # [chunks] lists of strings
    ends = np.cumsum([0, *(len(found.values) for found in _each(lists))])
    rows = sample_rows(int(ends[-1]), config)
    for found, first, end in zip(_each(lists), ends[:-1], ends[1:], strict=True):
        low, high = np.searchsorted(rows, (first, end))
        lines = found.values.take(rows[low:high] - first)
        yield from (line for line in lines.to_pylist() if line)


def _each(lists: Any) -> Iterator[Any]:
    """The items of a chunked Arrow array, not made Python objects of."""
    return (item for part in lists.iterchunks() for item in part)


def encode(
    sources: Sequence[str | None], targets: Sequence[str | None], known: Vocabulary,
    max_length: int, held: Held,
) -> Encoded:  # fmt: skip
    """Encode pairs and say which are dropped.

    Args:
        sources, targets: the raw sides, None where there is none.
        known: what cuts them.
        max_length: most ids of a side, `</s>` included.
        held: pairs that must not be among them.
    """
    reasons = [_reason(a, b, held) for a, b in zip(sources, targets, strict=True)]
    for row, reason in enumerate(reasons):
        if reason is None and _surely_long(sources[row], targets[row], known, max_length):
            reasons[row] = "too_long"
    rows = [row for row, reason in enumerate(reasons) if reason is None]
    source_ids = known.encode_source([sources[row] or "" for row in rows])
    target_ids = known.encode_target([targets[row] or "" for row in rows])
    kept_source, kept_target = [], []
    for row, a, b in zip(rows, source_ids, target_ids, strict=True):
        if not a or not b:
            reasons[row] = "empty"
        elif max(len(a), len(b)) >= max_length:  # `</s>` is one more
            reasons[row] = "too_long"
        else:
            kept_source.append([*a, END])
            kept_target.append([*b, END])
    return Encoded(reasons, kept_source, kept_target)


def _reason(source: str | None, target: str | None, held: Held) -> str | None:
    if not source or not target or is_blank(source) or is_blank(target):
        return "empty"
    if "\0" in source or "\0" in target:
        return "nul"
    if held and fold(target) in held.get(fold(source), ()):
        return "overlap"
    return None


def _surely_long(
    source: str | None, target: str | None, known: Vocabulary, max_length: int
) -> bool:
    """Whether a side is too long even in the longest pieces: no time goes into cutting it."""

    def beyond(line: str, side: Cutter) -> bool:
        return side.longest is not None and len(line) > side.longest * max_length

    source, target = source or "", target or ""
    # Normalising can make a line shorter or longer, so only the normalised one decides.
    return beyond(target, known.target) or (
        beyond(source, known.source) and beyond(fold(source), known.source)
    )


def as_row(encoded: Encoded, dtype: str) -> dict[str, Any]:
    """A chunk as flat bytes and counts, so that no lists enter Arrow.

    The keys are `source_tokens`, `target_tokens` (ids end to end, of `dtype`),
    `source_lengths`, `target_lengths` (int32), `pairs`, and the number dropped for each reason.
    """
    dropped = Counter(reason for reason in encoded.reasons if reason)
    row: dict[str, Any] = {"pairs": len(encoded.reasons)}
    row |= {reason: dropped[reason] for reason in REASONS}
    for side, ids in (("source", encoded.source), ("target", encoded.target)):
        row[f"{side}_tokens"] = np.array(list(chain.from_iterable(ids)), dtype).tobytes()
        row[f"{side}_lengths"] = np.array([len(line) for line in ids], np.int32).tobytes()
    return row


def encode_row(
    chunk: dict[str, Any], known: Vocabulary, max_length: int, held: Held, dtype: str
) -> dict[str, Any]:
    """`encode` and `as_row` of a chunk with its `source` and `target`: what a worker does."""
    return as_row(encode(chunk["source"], chunk["target"], known, max_length, held), dtype)
