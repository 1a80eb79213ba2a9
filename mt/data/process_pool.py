"""Worker processes that map a function over a stream of items, in order and in bounded memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Any, Literal, TypeVar

from mt.errors import MachineError
from mt.runtime.device import physical_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 3
"""Items that each process may be ahead of what is used."""

_work: Callable[[Any], Any] | None = None


def _start_worker(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent has been killed: it would wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"
    parent.join()
    os._exit(1)


def _work_on(part: Any) -> Any:
    assert _work is not None
    return _work(part)


def count_processes(setting: Literal["auto"] | int) -> int:
    """Return the number of processes that `data.processes` says; `auto` is one a core."""
    return physical_cores() if setting == "auto" else setting


def map_in_order(
    work: Callable[[Any], Result], items: Iterable[Item], processes: int,
    part: Callable[[Item], Any] = lambda item: item,
) -> Iterator[tuple[Item, Result]]:  # fmt: skip
    """Yield each item with what `work` returns for `part` of it, the piece that a worker gets.

    With one process the work is done in this one.

    Raises:
        MachineError: a worker was killed.
    """
    if processes == 1:
        yield from ((item, work(part(item))) for item in items)
        return
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(processes, context, _start_worker, (work,))
    others = set(multiprocessing.active_children())
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            waiting.append((item, _submit(pool, part(item))))
            if len(waiting) > AHEAD * processes:
                item, future = waiting.popleft()
                yield item, future.result()
        for item, future in waiting:
            yield item, future.result()
    except BrokenProcessPool:
        what, advice = "a process that works on pairs was killed", "is there memory enough?"
        advice += " set data.processes=1 to see"
        raise MachineError("WORKER-DIED", "prepare", what, advice) from None
    finally:
        _end(pool, others)


def _end(pool: ProcessPoolExecutor, others: set[BaseProcess]) -> None:
    """End a pool, and those of its processes that it does not know.

    A signal may come between the start of its processes and that of its own thread, which would
    have told them to end: they would wait for work forever.
    """
    with contextlib.suppress(RuntimeError):  # the thread was made, and not started
        pool.shutdown(cancel_futures=True)
    for process in set(multiprocessing.active_children()) - others:
        process.terminate()
        process.join()


def _submit(pool: ProcessPoolExecutor, part: Any) -> Future[Any]:
    with warnings.catch_warnings():  # fork is safe here: no threads of ours are running
        warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
        return pool.submit(_work_on, part)
