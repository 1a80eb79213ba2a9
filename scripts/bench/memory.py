"""How much memory a process and all below it use, on Linux."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for process in found:
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                continue
    return found


def unshared(pid: int) -> int:
    """The kB of a process that no other one shares."""
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Private_")


def own(pid: int) -> int:
    """The kB of that which the process wrote itself: pages of files that it maps are left out."""
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Private_Dirty")


def resident(pid: int) -> int:
    """The kB of a process that are in memory."""
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmRSS")


def _kilobytes(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(name))


class Watch:
    """While inside: the most MB that a process and all below it use at once.

    Args:
        child: the process.
        measure: `unshared`, `own` or `resident`.
        every: seconds from one look to the next.
    """

    def __init__(
        self, child: subprocess.Popen[str], measure: Callable[[int], int], every: float = 0.05
    ) -> None:
        self.pid, self.measure, self.every = child.pid, measure, every
        self.peak = 0.0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self.done.wait(self.every):
            self.peak = max(self.peak, sum(map(self.measure, tree(self.pid))) / 1024)

    def __enter__(self) -> Watch:
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.done.set()
        self.thread.join()
