"""Which lines of a test set a page shows: all, or as many as fit, chosen by several orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, zip_longest

GOLDEN = 0.6180339887498949
"""Its multiples, modulo 1, are spread over the unit interval however many there are."""


def select_rows(
    chrf: Sequence[Sequence[float]], cost: Callable[[int], int], most: int, budget: int
) -> list[int]:
    """Return the rows to show, ascending: all, or as many as fit.

    They are chosen in turn: the worst of the first run, the most changed between the first and
    the last run, and one of a spread over all.

    Args:
        chrf: the chrF of each row, for each run.
        cost: returns the bytes of a row on the page.
        most: the number of rows at most.
        budget: the bytes of all rows at most.
    """
    count = len(chrf[0])
    orders = [sorted(range(count), key=lambda row: chrf[0][row])]
    if len(chrf) > 1:
        orders.append(sorted(range(count), key=lambda row: -abs(chrf[0][row] - chrf[-1][row])))
    orders.append([int(n * GOLDEN % 1 * count) for n in range(count)])
    chosen: set[int] = set()
    for row in chain.from_iterable(zip_longest(*orders)):
        if len(chosen) == most:
            break
        if row not in chosen and (bytes_of := cost(row)) <= budget:
            budget -= bytes_of
            chosen.add(row)
    return sorted(chosen)
