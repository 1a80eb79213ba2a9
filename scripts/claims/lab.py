"""Where a claim gets its measurements: looked up, or made now, side by side or one by one.

What is timed runs alone, in a fresh process that may use all cores. What only trains and scores
runs in as many processes as there are cores, one thread each, which is twice the work of one
process with two threads on models this small.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from claims.store import Store, Task
from mt.errors import MtError, Stopped
from mt.runtime.device import physical_cores

Size = Literal["full", "quick", "micro"]


FREE = 0.15
"""How much of the machine others may use while something is timed, of all its processors."""


class Failed(Exception):
    """A measurement could not be made; what it said."""


class Lab:
    """What a claim measures with.

    Args:
        store: what was measured before, and where to keep what is measured now.
        size: how large the experiments are.
        cores: how many processes work side by side; 0: in this process, as tests do.
    """

    def __init__(self, store: Store, size: Size, cores: int | None = None) -> None:
        self.store, self.size = store, size
        self.cores = physical_cores() if cores is None else cores
        self.used: dict[str, dict[str, Any]] = {}
        """Each measurement that was asked for, by its key: its seconds, whether it ran alone, and
        which share of the machine others used meanwhile."""

    def choose(self, full: Any, quick: Any, micro: Any) -> Any:
        """What belongs to the size."""
        return {"full": full, "quick": quick, "micro": micro}[self.size]

    def measure(self, tasks: Mapping[str, Task], alone: bool = False) -> dict[str, Any]:
        """The values of tasks by name, in the order given.

        Args:
            alone: one after another, each with the machine to itself, for what is timed. What was
                timed on a machine that was not free is measured again.
        """
        missing = {
            task.key: (name, task) for name, task in tasks.items() if not self._found(task, alone)
        }
        if missing:
            self._make(missing, alone)
        values = {}
        for name, task in tasks.items():
            made = self.store.found(task)
            assert made is not None, "it was made above"
            others = made.get("others", 0.0)
            self.used[task.key] = {"seconds": made["seconds"], "alone": alone, "others": others}
            values[name] = made["value"]
            if alone and others > FREE:
                say(f"{name}: others used {others:.0%} of the machine; measure it again later")
        return values

    def _found(self, task: Task, alone: bool) -> bool:
        made = self.store.found(task)
        if made is not None and alone and made.get("others", 0.0) > FREE:
            self.store.forget(task)
            return False
        return made is not None

    def _make(self, missing: Mapping[str, tuple[str, Task]], alone: bool) -> None:
        waiting = list(missing.values())
        if not self.cores:
            for _, task in waiting:
                self.store.make(task)
            return
        count = 1 if alone else min(self.cores, len(waiting))
        threads = self.cores if alone else 1
        with contextlib.ExitStack() as stack:
            workers = [stack.enter_context(_worker(self.store, threads)) for _ in range(count)]
            busy: dict[Connection, str] = {}
            idle = [pipe for _, pipe in workers]
            while waiting or busy:
                while waiting and idle:
                    name, task = waiting.pop(0)
                    pipe = idle.pop()
                    pipe.send(task)
                    busy[pipe] = name
                for pipe in wait(list(busy)):
                    name = busy.pop(pipe)  # type: ignore[call-overload]
                    say(f"{name}: {_answer(pipe, name)} ({len(waiting)} to begin)")
                    idle.append(pipe)  # type: ignore[arg-type]


def say(line: str) -> None:
    """A line to whoever watches."""
    print(line, file=sys.stderr, flush=True)


def _answer(pipe: Any, name: str) -> str:
    try:
        kind, told = pipe.recv()
    except (EOFError, OSError):
        raise Failed(f"{name}: its process ended unexpectedly; was memory short?") from None
    if kind == "failed":
        raise Failed(f"{name}: {told}")
    return told


# ------------------------------------------------------------------------------- a process


@contextlib.contextmanager
def _worker(store: Store, threads: int) -> Iterator[tuple[BaseProcess, Connection]]:
    """A process that makes measurements while inside; told to stop, mt saves a checkpoint."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read once, when torch is imported
    try:
        process = context.Process(target=_work, args=(theirs, store.folder, threads))
        process.start()
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
    theirs.close()
    try:
        yield process, ours
    except BaseException:
        process.terminate()
        raise
    finally:
        ours.close()
        process.join()


def _work(pipe: Connection, folder: Path, threads: int) -> None:
    """Make what comes until the parent goes, however it goes."""
    import torch

    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends this
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    log = folder / f"log-{multiprocessing.current_process().name}.txt"
    store = Store(folder)
    with log.open("a", encoding="utf-8") as stream, contextlib.redirect_stderr(stream):
        while True:
            try:
                task = pipe.recv()
            except (EOFError, OSError):
                return
            try:
                answer = "made", f"{store.make(task)['seconds']:.0f} s"
            except Stopped:  # by the parent; what was to be saved is saved
                return
            except MtError as error:
                answer = "failed", str(error)
            except Exception:
                answer = "failed", traceback.format_exc()
            with contextlib.suppress(OSError):
                pipe.send(answer)
