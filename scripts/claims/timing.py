"""Timing that a busy moment cannot decide: sides in turn, round by round; and peaks of memory."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from statistics import median

Work = Callable[[], object]


def interleaved(
    sides: Mapping[str, Work], rounds: int, least: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of a call of each side, in each round; the sides take turns within a round.

    Args:
        sides: the work by name.
        rounds: how many times each is timed.
        least: call again within a round until so many seconds have passed; their mean counts.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    for work in sides.values():
        work()  # what is done but once is not a part of it
    for number in range(rounds):
        names = list(sides)
        for name in names if number % 2 == 0 else reversed(names):
            began, calls = time.perf_counter(), 0
            while not calls or time.perf_counter() - began < least:
                sides[name]()
                calls += 1
            found[name].append((time.perf_counter() - began) / calls)
    return found


def peak(function: Callable[..., None], *arguments: object) -> int:
    """Bytes by which the peak of a fresh process grows in `function(*arguments)`.

    The function is called with `small=True` first, which loads what is loaded but once.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_peak, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        grown = ours.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the measuring process ended ({process.exitcode})") from None
    process.join()
    return grown


def _peak(pipe: Connection, function: Callable[..., None], arguments: tuple[object, ...]) -> None:
    unit = 1 if sys.platform == "darwin" else 1024
    function(*arguments, small=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    function(*arguments, small=False)
    pipe.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit)


def told(values: list[float]) -> str:
    """`median (lowest to highest)`, to three digits."""
    low, middle, high = (
        f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        for value in (min(values), median(values), max(values))
    )
    return f"{middle} ({low} to {high})"
