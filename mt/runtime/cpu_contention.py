"""Make torch's CPU threads sleep while they wait, as long as other processes want their cores.

A parallel region ends when its slowest thread does, and an update has thousands of regions. The
threads that are ready first spin for some milliseconds, which is fastest on an idle machine and
worst on a busy one: a thread that spins holds the core that the slowest thread waits for.
GNU OpenMP, which torch uses on Linux, spins a thousand times shorter while it has more threads
than there are processors. A second team of idle threads brings that about, and its end undoes it.
Nothing else changes: no result depends on it.

The kernel counts how long each thread was ready and had no core (`schedstat`, Linux).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mt.runtime.device import available_cpus
from mt.runtime.torch_private import gnu_openmp

CHECK_SECONDS = 1.0
"""Between two looks at the counters of the kernel."""
CONTENDED = 0.6
"""Seconds a second that threads wait for a core from which sleeping is faster; docs/experiments.md
has the figures. A neighbour of lower priority takes less, and spinning is faster beside it."""
QUIET = 0.15
"""Seconds a second below which the machine is idle again."""
RETRY_SECONDS = 30.0
"""After so long the threads spin for one look, since sleeping threads may hide an idle core."""


class CpuContention(threading.Thread):
    """Watches how long the threads of this process wait for a core, until it is closed.

    It does nothing where the kernel does not count, or where torch does not use GNU OpenMP.
    """

    def __init__(self, threads: int, log: Callable[[str], None]) -> None:
        """Begin to watch a process whose parallel regions have `threads` threads."""
        super().__init__(name="cpu-contention", daemon=True)
        self.log, self.closed = log, threading.Event()
        self.openmp = gnu_openmp() if threads > 1 and waited_seconds() is not None else None
        self.team = IdleTeam(self.openmp, len(available_cpus()) - threads + 2)
        self.sleeping_since: float | None = None
        self.announced = False
        if self.openmp is not None:
            self.start()

    def run(self) -> None:
        """Look once a second."""
        waited, since = waited_seconds() or 0.0, time.monotonic()
        while not self.closed.wait(CHECK_SECONDS):
            waited_now, now = waited_seconds() or 0.0, time.monotonic()
            self.decide((waited_now - waited) / (now - since), now)
            waited, since = waited_now, now
        self.team.end()

    def decide(self, share: float, now: float) -> None:
        """Spin or sleep from now on, after threads waited `share` seconds a second for a core."""
        if self.sleeping_since is None:
            if share >= CONTENDED:
                self.sleeping_since = now
                self.team.begin()
                if not self.announced:
                    self.announced = True
                    self.log("other processes want the same cores: training is slower beside them")
        elif share < QUIET or now - self.sleeping_since >= RETRY_SECONDS:
            self.sleeping_since = None
            self.team.end()

    def close(self) -> None:
        """Stop watching; threads spin again."""
        self.closed.set()
        if self.ident is not None:
            self.join()


class IdleTeam:
    """A second team of OpenMP threads, which does nothing; it exists between `begin` and `end`."""

    def __init__(self, openmp: Any, size: int) -> None:
        self.openmp, self.size = openmp, max(2, size)
        self.ended = threading.Event()
        self.thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start the team; OpenMP keeps it as long as the thread that it belongs to."""
        begun = threading.Event()
        self.ended.clear()

        def own_team() -> None:
            try:  # the team runs a C function without effect, since its threads know no Python
                self.openmp.GOMP_parallel(self.openmp.omp_get_num_procs, None, self.size, 0)
            finally:
                begun.set()
            self.ended.wait()

        self.thread = threading.Thread(target=own_team, name="idle-openmp-team", daemon=True)
        self.thread.start()
        begun.wait()

    def end(self) -> None:
        """End the team, if there is one."""
        self.ended.set()
        if self.thread is not None:
            self.thread.join()
            self.thread = None


def waited_seconds() -> float | None:
    """Return how long the threads of this process have waited for a core; None if not counted."""
    waited, counted = 0, False
    with contextlib.suppress(OSError):
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended
                waited += int((thread / "schedstat").read_text(encoding="ascii").split()[1])
                counted = True
    return waited / 1e9 if counted else None
