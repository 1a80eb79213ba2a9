"""Measures the tasks of a claim, side by side or one by one, or looks them up.

A task that is timed runs alone, in a fresh process that may use all cores. Tasks that only train
and score run in as many processes as there are cores, one thread each: on models this small that is
twice as fast as one process with two threads.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Literal

from bench.harness import say

from claims.store import Store, Task
from mt.errors import MtError, Stopped
from mt.runtime.device import physical_cores

Size = Literal["full", "quick", "micro"]
FREE = 0.15
"""The share of all processors that others may use while something is timed."""


class Failed(Exception):
    """A measurement failed, with its error message."""


class Lab:
    """Measures for one claim.

    Args:
        store: finished measurements; new ones are added.
        size: how large the experiments are.
        cores: how many processes work side by side; 0: in this process, as tests do.
    """

    def __init__(self, store: Store, size: Size, cores: int | None = None) -> None:
        self.store, self.size = store, size
        self.cores = physical_cores() if cores is None else cores
        self.used: dict[str, dict[str, Any]] = {}
        """By the key of each measurement of this claim: its seconds, whether it ran alone, and the
        share of the machine that others used meanwhile."""

    def choose(self, full: Any, quick: Any, micro: Any) -> Any:
        """Return the value for the size."""
        return {"full": full, "quick": quick, "micro": micro}[self.size]

    def measure(self, tasks: Mapping[str, Task], alone: bool = False) -> dict[str, Any]:
        """Return the values of tasks by name, in the order given.

        Args:
            tasks: the tasks by name.
            alone: one after another, each with the machine to itself, for what is timed. A task
                that was timed on a machine that was not free is measured again.

        Raises:
            Failed: one of them failed.
        """
        missing = {
            task.key: (name, task) for name, task in tasks.items() if not self._found(task, alone)
        }
        if missing and self.cores:
            self._make(list(missing.values()), alone)
        values = {}
        for name, task in tasks.items():
            made = self.store.make(task)
            others = made.get("others", 0.0)
            self.used[task.key] = {"seconds": made["seconds"], "alone": alone, "others": others}
            values[name] = made["value"]
            if alone and others > FREE:
                say(f"{name}: others used {others:.0%} of the machine; measure it again later")
        return values

    def measure_grid(
        self, names: Iterable[str], values: Sequence[Any], task: Callable[[str, Any], Task],
        label: str = "", alone: bool = False,
    ) -> dict[str, list[Any]]:  # fmt: skip
        """Measure a task for each name and value; return by name one result for each value."""
        tasks = {
            (name, value): (f"{name}, {value} {label}".rstrip(), task(name, value))
            for name in names
            for value in values
        }
        found = self.measure(dict(tasks.values()), alone)
        return {name: [found[tasks[name, value][0]] for value in values] for name in names}

    def _found(self, task: Task, alone: bool) -> bool:
        made = self.store.found(task)
        if made is not None and alone and made.get("others", 0.0) > FREE:
            self.store.forget(task)
            return False
        return made is not None

    def _make(self, missing: Sequence[tuple[str, Task]], alone: bool) -> None:
        """Make measurements in processes; if this one is stopped, theirs save a checkpoint."""
        count, threads = (1, self.cores) if alone else (min(self.cores, len(missing)), 1)
        pool = ProcessPoolExecutor(
            count, multiprocessing.get_context("spawn"), _start, (self.store.folder, threads)
        )
        before = dict(os.environ)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # read once, when torch is imported
        names = {pool.submit(_work, self.store.folder, task): name for name, task in missing}
        os.environ.clear()
        os.environ.update(before)
        try:
            for number, future in enumerate(as_completed(names), start=1):
                good, text = future.result()
                if not good:
                    raise Failed(f"{names[future]}: {text}")
                say(f"{names[future]}: {text} ({len(missing) - number} left)")
        except BrokenProcessPool:
            raise Failed("a process ended unexpectedly; was memory short?") from None
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


# ------------------------------------------------------------------------------- a process


def _start(folder: Path, threads: int) -> None:
    """Prepare a process that makes measurements."""
    import torch

    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it, too, and ends this
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
    log = folder / f"log-{multiprocessing.current_process().name}.txt"
    sys.stderr = log.open("a", encoding="utf-8", buffering=1)


def _work(folder: Path, task: Task) -> tuple[bool, str]:
    """Make a measurement; return whether it worked, and its time or its error."""
    try:
        return True, f"{Store(folder).make(task)['seconds']:.0f} s"
    except Stopped:  # by the parent; mt has saved a checkpoint
        os._exit(0)
    except MtError as error:
        return False, str(error)
    except Exception:
        return False, traceback.format_exc()
