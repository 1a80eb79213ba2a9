"""How much the peak memory of a fresh process grows in a piece of work."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection


def peak_growth(function: Callable[..., None], *arguments: object) -> int:
    """Return by how many bytes the peak of a fresh process grows in `function(*arguments)`.

    The function is called with `small=True` first, to load what loads only once.
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
