"""Batches and their shapes from the lengths of sentence pairs.

`bucket_by_length` is for devices that take any shape, `choose_shapes` and `pack_into_shapes` for
those on which each new shape costs a start-up. `source` and `target` are lengths [pairs].
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
    source: Lengths, target: Lengths, padded_tokens: int, tokens: int
) -> list[PairIndices]:
    """Cut pairs into batches of at most `padded_tokens`, and `tokens` of them real target tokens.

    All pairs are one rectangle, as wide as the longest of each side. A rectangle that is too
    large is split in two, by source or by target length, where the two have the least padding: a
    k-d tree over the lengths of both sides. Each half has a quarter of the pairs at least: else
    long tails are cut off one by one, and batches become too small to be fast. A pair that is too
    large is a batch of its own. Returns the rows of each batch.
    """
    batches: list[PairIndices] = []
    pending = [np.arange(len(source))] if len(source) else []
    while pending:
        rows = pending.pop()
        size = _rectangle(source, target, rows)
        if len(rows) == 1 or (size <= padded_tokens and int(target[rows].sum()) <= tokens):
            batches.append(rows)
        else:
            pending += reversed(_split_in_two(source, target, rows, share=0.25)[1])
    return batches


def _rectangle(source: Lengths, target: Lengths, rows: PairIndices) -> int:
    """Return the padded tokens of some pairs as one batch."""
    return (int(source[rows].max()) + int(target[rows].max())) * len(rows)


def _split_in_two(
    source: Lengths, target: Lengths, rows: PairIndices, share: float
) -> tuple[int, list[PairIndices]]:
    """Split `rows` in the two parts with the fewest padded tokens; return how many, and the parts.

    Each part has a `share` of the pairs at least.
    """
    s, t = source[rows], target[rows]
    orders = [np.lexsort((t, s)), np.lexsort((s, t))]
    splits = [(*_best_split(s[order], t[order], share), order) for order in orders]
    size, at, order = min(splits, key=lambda split: split[0])
    return size, [rows[order[:at]], rows[order[at:]]]


def _best_split(source: Lengths, target: Lengths, share: float) -> tuple[int, int]:
    """Return the fewest padded tokens of sorted pairs split in two, and where to split."""
    pairs = len(source)
    sizes = _padded_tokens(source, target)[:-1] + _padded_tokens(source[::-1], target[::-1])[-2::-1]
    least = max(1, int(pairs * share))
    at = least + int(np.argmin(sizes[least - 1 : pairs - least]))
    return int(sizes[at - 1]), at


def _padded_tokens(source: Lengths, target: Lengths) -> NDArray[np.int64]:
    """Return the padded tokens of the first pair, of the first two as one batch, and so on."""
    widths = np.maximum.accumulate(source).astype(np.int64) + np.maximum.accumulate(target)
    return widths * np.arange(1, len(source) + 1)


def choose_shapes(source: Lengths, target: Lengths, padded_tokens: int) -> tuple[Shape, ...]:
    """Choose at most MAX_SHAPES shapes that fit a corpus with little padding, smallest first.

    The rectangle around all lengths is split where that saves the most padding, as in
    `bucket_by_length`; each shape has about `padded_tokens`.
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
        (_rows_per_batch(padded_tokens, s + t), s, t)
        for s, t in sorted(sides, key=lambda side: (sum(side), side))
    )


def _rows_per_batch(padded_tokens: int, width: int) -> int:
    """Return the rows of a shape, a multiple of 8 where tensor cores gain by it."""
    rows = max(1, padded_tokens // width)
    return rows - rows % 8 if rows > 8 else rows


def _padding_saved(
    source: Lengths, target: Lengths, rows: PairIndices
) -> tuple[int, list[PairIndices]]:
    """Return the padded tokens that the best split of a part saves, and its halves."""
    if len(rows) < 2:
        return 0, []
    size, halves = _split_in_two(source, target, rows, share=0)
    return _rectangle(source, target, rows) - size, halves


def pack_into_shapes(
    shapes: Sequence[Shape], source: Lengths, target: Lengths
) -> list[PairIndices]:
    """Cut pairs into batches that each fit one of the shapes, nearly all full; return their rows.

    A pair goes to the smallest shape that it fits. Pairs that do not fill a last batch move on to
    the next shape that they fit. Shapes are sorted, smallest first.
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
    """Cut consecutive micro-batches into `count` groups of similar size, none empty."""
    count = min(count, len(sizes))
    middles = np.cumsum(sizes) - sizes / 2
    targets = sizes.sum() * np.arange(1, count) / count
    first = np.arange(1, count)  # the fewest micro-batches before each group
    ends = np.maximum.accumulate(np.searchsorted(middles, targets) - first) + first
    ends = np.clip(ends, first, len(sizes) - count + first)
    return np.split(np.arange(len(sizes)), ends)


def smallest_shape(shapes: Sequence[Shape], rows: int, source: int, target: int) -> Shape:
    """Return the first, which is the smallest, of the shapes with at least these sizes."""
    for shape in shapes:
        if rows <= shape[0] and source <= shape[1] and target <= shape[2]:
            return shape
    raise ValueError(f"{rows} rows of {source} + {target} positions fit no shape")
