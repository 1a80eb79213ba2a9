"""Batches and their shapes from nothing but the lengths of sentence pairs.

`bucket_by_length` is for devices that take any shape. `choose_shapes` and `pack_into_shapes` are
for devices on which each new shape costs a start-up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PairIndices = NDArray[np.int64]
Lengths = NDArray[np.integer]
Shape = tuple[int, int, int]
"""Rows, source positions, target positions."""
MAX_SHAPES = 24
_SAMPLE = 50_000


def bucket_by_length(
    source: Lengths, target: Lengths, slots: int, tokens: int
) -> list[PairIndices]:
    """Batches of at most `slots` padded slots and `tokens` target tokens, with little padding.

    All pairs are one rectangle, as wide as the longest of each side. A rectangle that is too
    large is split in two, by source or by target length, where the two have the fewest slots
    together: a k-d tree over the lengths of both sides, which sorting by one of them is not.
    Each half has a quarter of the pairs at least: else long tails are shaved off one by one,
    and batches become too small to be fast. A pair that is too large
    by itself is a batch of its own.

    Args:
        source, target: [pairs] real positions.

    Returns:
        Positions within `source` and `target` of each batch's pairs.
    """
    batches: list[PairIndices] = []
    waiting = [np.arange(len(source))] if len(source) else []
    while waiting:
        rows = waiting.pop()
        s, t = source[rows], target[rows]
        fits = (int(s.max()) + int(t.max())) * len(rows) <= slots and int(t.sum()) <= tokens
        if fits or len(rows) == 1:
            batches.append(rows)
        else:
            waiting += reversed(_split_in_two(source, target, rows, share=0.25)[1])
    return batches


def _split_in_two(
    source: Lengths, target: Lengths, rows: PairIndices, share: float
) -> tuple[int, list[PairIndices]]:
    """The two parts of `rows` that have the fewest slots together, and how many."""
    s, t = source[rows], target[rows]
    slots, at, order = min(
        (
            (*_best_split(s[order], t[order], share), order)
            for order in (np.lexsort((t, s)), np.lexsort((s, t)))
        ),
        key=lambda found: found[0],
    )
    return slots, [rows[order[:at]], rows[order[at:]]]


def _best_split(source: Lengths, target: Lengths, share: float) -> tuple[int, int]:
    """The fewest slots that sorted pairs have when split in two, and where.

    The smaller part gets a `share` of the pairs at least.
    """
    pairs = len(source)
    slots = _padded_tokens(source, target)[:-1] + _padded_tokens(source[::-1], target[::-1])[-2::-1]
    least = max(1, int(pairs * share))
    at = least + int(np.argmin(slots[least - 1 : pairs - least]))
    return int(slots[at - 1]), at


def _padded_tokens(source: Lengths, target: Lengths) -> NDArray[np.int64]:
    """The slots of the first pair, of the first two as one rectangle, of the first three ..."""
    widths = np.maximum.accumulate(source).astype(np.int64) + np.maximum.accumulate(target)
    return widths * np.arange(1, len(source) + 1)


def choose_shapes(source: Lengths, target: Lengths, slots: int) -> tuple[Shape, ...]:
    """At most MOST_SHAPES shapes that hold a corpus with little padding, smallest first.

    The rectangle around all lengths is split again and again where that saves the most slots
    (see `bucket_by_length`).

    Args:
        source, target: [pairs] real positions.
        slots: padded slots of one forward pass.
    """
    if len(source) > _SAMPLE:
        some = np.linspace(0, len(source) - 1, _SAMPLE).astype(np.int64)
        longest = [int(source.argmax()), int(target.argmax())]
        source, target = (side[np.append(some, longest)] for side in (source, target))
    parts = [np.arange(len(source))]
    splits = [_padding_saved(source, target, parts[0])]
    while len(parts) < MAX_SHAPES - 1:
        best = max(range(len(parts)), key=lambda i: splits[i][0])
        saved, halves = splits[best]
        if saved <= 0:
            break
        parts[best : best + 1] = halves
        splits[best : best + 1] = [_padding_saved(source, target, half) for half in halves]
    sides = {(int(source[part].max()), int(target[part].max())) for part in parts}
    sides.add((int(source.max()), int(target.max())))  # so that everything fits somewhere
    return tuple(
        (_rows_per_batch(slots, s + t), s, t) for s, t in sorted(sides, key=lambda x: (sum(x), x))
    )


def _rows_per_batch(slots: int, width: int) -> int:
    """Rows of a shape: what the slots allow, a multiple of 8 where tensor cores gain by it."""
    rows = max(1, slots // width)
    return rows - rows % 8 if rows > 8 else rows


def _padding_saved(
    source: Lengths, target: Lengths, rows: PairIndices
) -> tuple[int, list[PairIndices]]:
    """How many slots the best split of a part saves, and its halves."""
    if len(rows) < 2:
        return 0, []
    slots, halves = _split_in_two(source, target, rows, share=0)
    return (int(source[rows].max()) + int(target[rows].max())) * len(rows) - slots, halves


def pack_into_shapes(
    shapes: Sequence[Shape], source: Lengths, target: Lengths
) -> list[PairIndices]:
    """Batches that each fit one of the shapes, all but a few of them full.

    A pair goes to the smallest shape that holds it; those left over when a shape's last batch
    is not full move up to the next larger shape that holds them.

    Args:
        shapes: from `choose_shapes`, smallest first.
        source, target: [pairs] real positions.

    Returns:
        Positions within `source` and `target` of each batch's pairs.
    """
    batches: list[PairIndices] = []
    left = np.arange(len(source))
    for number, (rows, s, t) in enumerate(shapes):
        inside = (source[left] <= s) & (target[left] <= t)
        here, left = left[inside], left[~inside]
        full = len(here) - len(here) % rows
        batches += np.split(here[:full], range(rows, full, rows)) if full else []
        rest = here[full:]
        stays = np.ones(len(rest), dtype=bool)
        for _, wider_s, wider_t in shapes[number + 1 :]:
            stays &= (source[rest] > wider_s) | (target[rest] > wider_t)
        if stays.any():
            batches.append(rest)
        else:
            left = np.concatenate((rest, left))
    if len(left):
        raise ValueError(f"{len(left)} pairs fit no shape")
    return batches


def balance_groups(sizes: NDArray[np.integer], count: int) -> list[NDArray[np.intp]]:
    """Cut a row of micro-batches into `count` groups, none empty, of sizes as equal as may be."""
    count = min(count, len(sizes))
    middles = np.cumsum(sizes) - sizes / 2
    wanted = sizes.sum() * np.arange(1, count) / count
    first = np.arange(1, count)  # each group begins after the one before, and leaves enough
    ends = np.maximum.accumulate(np.searchsorted(middles, wanted) - first) + first
    ends = np.clip(ends, first, len(sizes) - count + first)
    return np.split(np.arange(len(sizes)), ends)


def smallest_shape(shapes: Sequence[Shape], rows: int, source: int, target: int) -> Shape:
    """The smallest of the shapes, which stand smallest first, that holds so much."""
    for shape in shapes:
        if rows <= shape[0] and source <= shape[1] and target <= shape[2]:
            return shape
    raise ValueError(f"{rows} rows of {source} + {target} positions fit no shape")
