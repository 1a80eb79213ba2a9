"""Reading lines in windows, and batches of like length; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

FIRST_WINDOW, LARGEST_WINDOW = 64, 4096
"""Lines sorted together: in the first window, small for an early output, and at most."""
GROWTH = 16
"""Growth of a window: many lines make batches of like lengths, few do not."""
BATCH_TOKENS = 6144
"""Padded source positions times beams of one batch on a CPU."""
Item = TypeVar("Item")
Result = TypeVar("Result")


class LineWarnings:
    """Counts lines for a warning at the end, and keeps the first ten numbers, from 1."""

    def __init__(self) -> None:
        self.count, self.first = 0, list[int]()

    def add(self, line: int) -> None:
        """Count a line."""
        self.count += 1
        if len(self.first) < 10:
            self.first.append(line)

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.first) else ""
        return f"lines {', '.join(map(str, self.first))}{more}"


def growing_windows(
    items: Iterable[Item], line_buffered: bool = False, low_latency: bool = True
) -> Iterator[list[Item]]:
    """The items in lists that grow from FIRST_WINDOW to LARGEST_WINDOW; one by one if buffered."""
    iterator, count = iter(items), FIRST_WINDOW if low_latency else LARGEST_WINDOW
    while window := list(islice(iterator, 1 if line_buffered else count)):
        yield window
        count = min(GROWTH * count, LARGEST_WINDOW)


def length_batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Rows of like length, the longest first; rows times the longest is at most `tokens`."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    start = 0
    while start < len(order):
        fit = max(1, tokens // max(1, lengths[order[start]]))
        end = start + fit // _size_step(fit) * _size_step(fit)
        yield order[start:end]
        start = end


def map_by_length(
    compute: Callable[[list[Item]], Iterable[Result]], items: Sequence[Item],
    lengths: Sequence[int], tokens: int,
) -> list[Result]:  # fmt: skip
    """The results of `compute` for batches of like length, in the order of the items."""
    results: dict[int, Result] = {}
    for rows in length_batches(lengths, tokens):
        results.update(zip(rows, compute([items[row] for row in rows]), strict=True))
    return [results[row] for row in range(len(items))]


def rounded_batch_size(count: int) -> int:
    """The least of a few dozen sizes that is not less.

    For each number of rows a library may keep kernels, and a GPU a graph.
    """
    return -(-count // _size_step(count)) * _size_step(count)


def _size_step(count: int) -> int:
    return 1 if count <= 4 else 4 if count <= 64 else 16 if count <= 256 else 64
