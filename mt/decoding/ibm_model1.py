"""Which target pieces a source piece becomes: IBM Model 1 (Brown et al. 1993, section 4.1).

Each target piece of a pair comes from one of its source pieces, or from the empty word, which
stands for what the target adds; all of them are alike but for t(target piece | source piece),
which a few iterations of EM estimate. Memory goes with the links (pairs of a target and a source
position within a sentence pair), of which only so many are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mt.data.corpus import EncodedPairs
from mt.special_tokens import END

EMPTY = 0
"""The source id that stands for the empty word; no piece of text has it."""
LINKS = 50_000_000
"""Most links that are looked at: about 12 bytes each."""
CHUNK = 2_000_000
"""Links that are worked on at a time."""
ITERATIONS = 5

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Lexicon:
    """The pairs of pieces that occur together, [L] each, ascending by source, then by target."""

    source: Ids
    """Source ids; `EMPTY` is the empty word."""
    target: Ids
    """Target ids, never that of the end."""
    probability: NDArray[np.float32]
    """t(target | source), which sums to 1 over the targets of a source."""

    def best(self, count: int) -> tuple[Ids, Ids]:
        """The sources and targets of the `count` most probable targets of each source.

        Of equal ones the lower ids; the best of a source first.
        """
        order = np.lexsort((-self.probability, self.source))  # stable: the lower ids stay first
        source, target = self.source[order], self.target[order]
        new = np.flatnonzero(np.diff(source, prepend=-1))  # where the targets of a source begin
        lengths = np.diff(new, append=len(source))
        rank = np.arange(len(source)) - np.repeat(new, lengths)
        return source[rank < count], target[rank < count]


@dataclass(frozen=True)
class _Links:
    """The links of some pairs, those of each target position one after another."""

    entries: NDArray[np.int32]
    """[P] which entry of the lexicon a link is of."""
    widths: NDArray[np.int32]
    """[target positions] how many links each has."""


def spread_rows(pairs: EncodedPairs, most: int) -> Ids:
    """Which pairs to learn from, ascending: at most `most`, evenly spread, of at most LINKS."""
    rows = _evenly(np.arange(len(pairs)), most)
    links = int((_lengths(pairs, "source", rows) * _lengths(pairs, "target", rows)).sum())
    return rows if links <= LINKS else _evenly(rows, max(1, len(rows) * LINKS // links))


def _evenly(rows: Ids, most: int) -> Ids:
    count = min(len(rows), most)
    return rows[np.arange(count) * len(rows) // max(count, 1)]


def _lengths(pairs: EncodedPairs, side: str, rows: Ids) -> Ids:
    _, offsets = pairs.arrays(side)
    return offsets[rows + 1] - offsets[rows]


def learn_lexicon(
    pairs: EncodedPairs, rows: Ids, size: int, iterations: int = ITERATIONS
) -> Lexicon:
    """The lexicon of some pairs of a corpus.

    Args:
        pairs: the corpus.
        rows: which of its pairs, ascending.
        size: number of target ids.
        iterations: of EM.
    """
    found, links = list[Ids](), list[_Links]()
    for chosen in _link_chunks(pairs, rows):
        keys, each = _pair_keys(pairs, chosen, size)
        unique, inverse = np.unique(keys, return_inverse=True)
        found.append(unique)
        links.append(_Links(inverse.astype(np.int32), each.astype(np.int32)))
    keys = np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
    for own, part in zip(found, links, strict=True):
        part.entries[:] = np.searchsorted(keys, own)[part.entries]
    source = keys // size
    probability = np.ones(len(keys), np.float32)
    for _ in range(iterations):
        probability = _em_step(probability, source, links)
    return Lexicon(source, keys % size, probability)


def _link_chunks(pairs: EncodedPairs, rows: Ids) -> Iterator[Ids]:
    """The rows in parts of about CHUNK links."""
    links = _lengths(pairs, "source", rows) * _lengths(pairs, "target", rows)
    part = np.cumsum(links) // CHUNK
    yield from np.split(rows, np.flatnonzero(np.diff(part)) + 1) if len(rows) else []


def _pair_keys(pairs: EncodedPairs, rows: Ids, size: int) -> tuple[Ids, Ids]:
    """Source id times `size` plus target id of each link; how many links a target position has."""
    sides = [[side(int(row)) for row in rows] for side in (pairs.source, pairs.target)]
    source, target = (np.concatenate(side).astype(np.int64) for side in sides)
    source[source == END] = EMPTY
    source_lengths, target_lengths = (np.array(list(map(len, side))) for side in sides)
    begin = np.cumsum(source_lengths) - source_lengths  # [pairs] of each source in `source`
    text = target != END
    widths = np.repeat(source_lengths, target_lengths)[text]  # [positions]
    begin = np.repeat(begin, target_lengths)[text]  # [positions]
    first = np.cumsum(widths) - widths  # [positions] the first link of each
    place = np.repeat(begin - first, widths) + np.arange(int(widths.sum()))  # [P]
    return source[place] * size + np.repeat(target[text], widths), widths


def _em_step(
    probability: NDArray[np.float32], source: Ids, links: list[_Links]
) -> NDArray[np.float32]:
    """t after one iteration of EM."""
    counts = np.zeros(len(probability))
    for each in links:
        if not len(each.widths):
            continue
        values = probability[each.entries].astype(np.float64)  # [P]
        first = np.cumsum(each.widths) - each.widths
        values /= np.repeat(np.add.reduceat(values, first), each.widths)
        counts += np.bincount(each.entries, values, len(counts))
    totals = np.bincount(source, counts)
    improved: NDArray[np.float32] = (counts / totals[source]).astype(np.float32)
    return improved
