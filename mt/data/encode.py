"""Encode raw pairs, chunk by chunk; drop and count those that cannot be used."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from mt.config.schema import SourceConfig
from mt.data.pairs import Pair, read_pairs
from mt.data.text import is_blank
from mt.errors import DataError
from mt.special_tokens import BACK_TRANSLATED, END, MASK, UNK
from mt.vocabulary.vocabulary import Vocabulary

CHUNK_PAIRS, _CHUNK_CHARACTERS = 1000, 1 << 20
REASONS = ("empty", "nul", "overlap", "too_long")
"""Why a pair is dropped; the first that applies is counted."""
EMPTY_CORPUS_ADVICE = {
    "empty": "see the corpus in the recipe: is it the right file, or column?",
    "nul": "is it text?",
    "overlap": "train on other pairs, or set data.drop_overlap=false",
    "too_long": "raise data.max_length, or split the lines into sentences",
}
"""Advice for a corpus that loses all its pairs for one reason."""
HeldOut = dict[str, set[str]]
"""Normalised source to normalised targets of the pairs that training must not have. Under "" are
the normalised texts that monolingual corpora must not have, when there are such corpora."""


def no_pairs_error(where: str, counts: Counter[str], reasons: Sequence[str] = REASONS) -> DataError:
    """The error of a corpus whose pairs were all dropped, most of them for one reason."""
    worst = max(reasons, key=lambda reason: counts[reason])
    what = f"none of {counts['pairs']} pairs is left; {counts[worst]} dropped as {worst}"
    advice = f"see the rule {worst} of data.clean: is it too strict, or for other languages?"
    return DataError("DATA-EMPTY", where, what, EMPTY_CORPUS_ADVICE.get(worst, advice))


class EncodeOptions(NamedTuple):
    """How the lines of a corpus are encoded."""

    source_tags: tuple[int, ...] = ()
    """Ids of the control pieces before each source."""
    monolingual: bool = False
    """Use the one side that exists as source and as target."""


PARALLEL = EncodeOptions()


def encode_options(config: SourceConfig, vocabulary: Vocabulary) -> EncodeOptions:
    """Return how to encode a corpus.

    A source begins with the tag of its target language where the vocabulary has such tags
    (Johnson et al. 2017, section 3), with `<bt>` where it was translated back (Caswell et al.
    2019, section 3.2), and with `<mask>` where it is monolingual text.
    """
    if config.side is None:
        back_translated = (BACK_TRANSLATED,) if config.tag == "bt" else ()
        return EncodeOptions((*vocabulary.front(config.direction.target), *back_translated))
    return EncodeOptions((MASK, *vocabulary.front(config.language)), True)


class Encoded(NamedTuple):
    """An encoded chunk."""

    reasons: list[str | None]
    """Why each pair is dropped; None: kept."""
    source: list[list[int]]
    """Ids of the kept pairs, without `</s>`."""
    target: list[list[int]]


def held_out_pairs(
    pairs: Iterable[Pair], vocabulary: Vocabulary, monolingual: bool = False
) -> HeldOut:
    """Collect pairs that training must not have; with `monolingual`, their single sides too."""
    held_out: HeldOut = {}
    for pair in pairs:
        source, target = map(vocabulary.normalise, (pair.source or "", pair.target or ""))
        held_out.setdefault(source, set()).add(target)
        if monolingual:
            held_out.setdefault("", set()).update((source, target))
    return held_out


def group_pairs(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    """Yield pairs in groups of bounded size."""
    group: list[Pair] = []
    characters = 0
    for pair in pairs:
        group.append(pair)
        characters += len(pair.source or "") + len(pair.target or "")
        if len(group) >= CHUNK_PAIRS or characters >= _CHUNK_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def chunk_corpora(
    corpora: Sequence[SourceConfig],
) -> Iterator[tuple[int, tuple[list[str | None], list[str | None]], list[str]]]:
    """Yield the chunks of corpora: number of the corpus, both sides, origin of each pair."""
    for number, source in enumerate(corpora):
        for pairs in group_pairs(read_pairs(source)):
            sides = [pair.source for pair in pairs], [pair.target for pair in pairs]
            yield number, sides, [pair.origin for pair in pairs]


def chunk_pairs(pairs: Iterable[Pair]) -> Iterator[tuple[list[str | None], list[str | None]]]:
    """Yield the sources and targets of pairs in chunks of bounded size."""
    for group in group_pairs(pairs):
        yield [pair.source for pair in group], [pair.target for pair in group]


def encode(
    sources: Sequence[str | None], targets: Sequence[str | None], vocabulary: Vocabulary,
    max_length: int, held_out: HeldOut, options: EncodeOptions = PARALLEL,
) -> Encoded:  # fmt: skip
    """Encode pairs; drop those held out, unusable, or of more than `max_length` ids with `</s>`."""
    if options.monolingual:
        sources = targets = [b if a is None else a for a, b in zip(sources, targets, strict=True)]
        texts = held_out.get("", set())
        normal = (vocabulary.normalise(text) for text in sources if text)
        held_out = {text: texts for text in normal if text in texts}
    normalised = vocabulary.normalise_source(line or "" for line in sources)
    reasons = _drop_reasons(sources, targets, normalised, vocabulary, max_length, held_out)
    kept = [row for row, reason in enumerate(reasons) if reason is None]
    if len(kept) < len(reasons):
        normalised, targets = [normalised[row] for row in kept], [targets[row] for row in kept]
    source_ids = vocabulary.source.encode(normalised)
    target_ids = vocabulary.target.encode(targets)  # type: ignore[arg-type] # none is None
    lengths = [*map(len, source_ids), *map(len, target_ids)]
    tags = len(options.source_tags)
    if lengths and not (min(lengths) and max(lengths) + tags < max_length):  # `</s>` is one more
        for i in reversed(range(len(kept))):
            a, b = len(source_ids[i]), len(target_ids[i])
            if not a or not b or max(a + tags, b) >= max_length:
                reasons[kept[i]] = "too_long" if a and b else "empty"
                del source_ids[i], target_ids[i]
    if tags:
        source_ids = [[*options.source_tags, *ids] for ids in source_ids]
    return Encoded(reasons, source_ids, target_ids)


def _drop_reasons(
    sources: Sequence[str | None], targets: Sequence[str | None], normalised: Sequence[str],
    vocabulary: Vocabulary, max_length: int, held_out: HeldOut,
) -> list[str | None]:  # fmt: skip
    """Return why each pair is dropped before it is tokenized; None: not dropped.

    A line that is too long even in the longest pieces is dropped here, to save time and memory.
    Only the normalised source counts: normalising can shorten a line.
    """
    most_source = (vocabulary.source.longest or math.inf) * max_length
    most_target = (vocabulary.target.longest or math.inf) * max_length
    raw = vocabulary.kind == "whitespace"  # its sources are not normalised yet
    reasons: list[str | None] = []
    for source, target, line in zip(sources, targets, normalised, strict=True):
        if not source or not target or is_blank(source) or is_blank(target):
            reasons.append("empty")
        elif "\0" in source or "\0" in target:
            reasons.append("nul")
        elif (
            held_out
            and (key := vocabulary.normalise(line) if raw else line) in held_out
            and vocabulary.normalise(target) in held_out[key]
        ):
            reasons.append("overlap")
        elif len(line) > most_source or len(target) > most_target:
            reasons.append("too_long")
        else:
            reasons.append(None)
    return reasons


def to_row(encoded: Encoded, dtype: str) -> dict[str, Any]:
    """Convert a chunk to flat bytes and counts.

    The keys are `source_tokens`, `target_tokens` (ids end to end, of `dtype`, `</s>` added),
    `source_lengths`, `target_lengths` (int32), `pairs`, the number dropped for each reason, and
    for each side `pieces` and `unknown`, the number of ids and of those that are `<unk>`.
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
        row[f"{side}_pieces"] = len(tokens) - len(ids)
        row[f"{side}_unknown"] = int(np.count_nonzero(tokens == UNK))
    return row
