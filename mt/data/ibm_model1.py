"""Lexical translation probabilities of pieces: IBM Model 1 (Brown et al. 1993, section 4.1).

Each target piece of a pair comes from one of its source pieces, or from the empty word, which
represents what the target adds. All of them are equally likely but for t(target | source), which a
few iterations of EM estimate. Memory grows with the links: a link is a target and a source position
of one pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mt.data.corpus import EncodedPairs
from mt.special_tokens import END

EMPTY = 0
"""The source id of the empty word; no piece of text has it."""
LINKS = 50_000_000
"""Most links to learn from: about 12 bytes each."""
CHUNK = 2_000_000
"""Links of one array operation."""
ITERATIONS = 5

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Lexicon:
    """Pairs of pieces that occur together, [L] each, ascending by source, then by target."""

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
        first = np.flatnonzero(np.diff(source, prepend=-1))  # of each source
        lengths = np.diff(first, append=len(source))
        rank = np.arange(len(source)) - np.repeat(first, lengths)
        return source[rank < count], target[rank < count]


@dataclass(frozen=True)
class _Links:
    """The links of some pairs, those of each target position one after another."""

    entries: NDArray[np.int32]
    """[P] entry of the lexicon of each link."""
    widths: NDArray[np.int32]
    """[target positions] number of links of each."""


def spread_rows(pairs: EncodedPairs, most: int, most_links: int = LINKS) -> Ids:
    """At most `most` pairs, ascending and evenly spread, with about `most_links` at most."""
    rows = _spread(np.arange(len(pairs)), most)
    links = int(_num_links(pairs, rows).sum())
    return rows if links <= most_links else _spread(rows, max(1, len(rows) * most_links // links))


def _spread(rows: Ids, most: int) -> Ids:
    count = min(len(rows), most)
    return rows[np.arange(count) * len(rows) // max(count, 1)]


def _num_links(pairs: EncodedPairs, rows: Ids) -> Ids:
    """The number of links of each pair, its ends included."""
    sides = (pairs.arrays(side)[1] for side in ("source", "target"))
    source, target = (offsets[rows + 1] - offsets[rows] for offsets in sides)
    return source * target


def learn_lexicon(
    pairs: EncodedPairs, rows: Ids, size: int, iterations: int = ITERATIONS
) -> Lexicon:
    """The lexicon of the pairs `rows`, ascending, of a corpus with `size` target ids."""
    keys_of_chunks, links = list[Ids](), list[_Links]()
    for chunk in _link_chunks(pairs, rows):
        keys, widths = link_keys(pairs, chunk, size)
        unique, inverse = np.unique(keys, return_inverse=True)
        keys_of_chunks.append(unique)
        links.append(_Links(inverse.astype(np.int32), widths.astype(np.int32)))
    keys = np.unique(np.concatenate([np.empty(0, np.int64), *keys_of_chunks]))
    for own, part in zip(keys_of_chunks, links, strict=True):
        part.entries[:] = np.searchsorted(keys, own)[part.entries]
    source = keys // size
    probability = np.ones(len(keys), np.float32)
    for _ in range(iterations):
        probability = _em_step(probability, source, links)
    return Lexicon(source, keys % size, probability)


def _link_chunks(pairs: EncodedPairs, rows: Ids) -> Iterator[Ids]:
    """The rows in parts of about CHUNK links."""
    part = np.cumsum(_num_links(pairs, rows)) // CHUNK
    yield from np.split(rows, np.flatnonzero(np.diff(part)) + 1) if len(rows) else []


def link_keys(pairs: EncodedPairs, rows: Ids, size: int) -> tuple[Ids, Ids]:
    """Source id * `size` + target id of each link [P]; number of links of each target position."""
    sides = [[side(int(row)) for row in rows] for side in (pairs.source, pairs.target)]
    source, target = (np.concatenate(side).astype(np.int64) for side in sides)
    source[source == END] = EMPTY
    source_lengths, target_lengths = (np.array(list(map(len, side))) for side in sides)
    begin = np.cumsum(source_lengths) - source_lengths  # [pairs] of each source in `source`
    is_text = target != END
    widths = np.repeat(source_lengths, target_lengths)[is_text]  # [positions]
    begin = np.repeat(begin, target_lengths)[is_text]  # [positions]
    first = np.cumsum(widths) - widths  # [positions] the first link of each
    place = np.repeat(begin - first, widths) + np.arange(int(widths.sum()))  # [P]
    return source[place] * size + np.repeat(target[is_text], widths), widths


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
