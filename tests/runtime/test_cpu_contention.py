"""Threads of torch spin alone and sleep beside busy processes."""

import sys
import time

import pytest
import sentencepiece  # noqa: F401  # brings a GNU OpenMP of its own
import torch

from mt.runtime import cpu_contention, torch_private
from mt.runtime.cpu_contention import CONTENDED, QUIET, RETRY_SECONDS, CpuContention, IdleTeam

OPENMP = torch_private.gnu_openmp()
needs_openmp = pytest.mark.skipif(OPENMP is None, reason="torch does not use GNU OpenMP here")


class RecordingTeam:
    """Stands for the idle team; keeps its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def begin(self) -> None:
        self.calls.append("begin")

    def end(self) -> None:
        self.calls.append("end")


def decided(*shares_and_times: tuple[float, float]) -> tuple[list[str], list[str]]:
    """The calls of the team, and the lines that are logged, after looks in this order."""
    lines: list[str] = []
    watch = CpuContention(1, lines.append)  # one thread: nothing runs by itself
    team = RecordingTeam()
    watch.team = team  # type: ignore[assignment]
    for share, now in shares_and_times:
        watch.decide(share, now)
    return team.calls, lines


def test_threads_spin_while_they_find_a_core() -> None:
    assert decided((0.0, 1.0), (CONTENDED - 0.01, 2.0)) == ([], [])


def test_threads_sleep_beside_busy_processes_until_the_machine_is_quiet() -> None:
    calls, lines = decided((CONTENDED, 1.0), (QUIET, 2.0), (QUIET - 0.01, 3.0))
    assert calls == ["begin", "end"]
    assert len(lines) == 1


def test_sleeping_threads_spin_for_a_look_now_and_then_and_the_user_reads_of_it_once() -> None:
    beside = [(CONTENDED, float(second)) for second in range(int(2 * RETRY_SECONDS) + 3)]
    calls, lines = decided(*beside)
    assert calls == ["begin", "end", "begin", "end", "begin"]
    assert len(lines) == 1


def test_one_thread_has_nothing_to_wait_for() -> None:
    watch = CpuContention(1, lambda line: None)
    assert not watch.is_alive()
    watch.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's counters are Linux's")
def test_a_watch_ends_when_it_is_closed() -> None:
    watch = CpuContention(2, lambda line: None)
    assert watch.is_alive() == (OPENMP is not None)
    watch.close()
    assert not watch.is_alive()


@needs_openmp
def test_an_idle_team_keeps_waiting_threads_from_spinning() -> None:
    def processor_seconds() -> float:
        """Spent while this thread is idle between parallel regions."""
        before, spent = torch.get_num_threads(), 0.0
        torch.set_num_threads(len(cpu_contention.available_cpus()))
        values = torch.zeros(1 << 20)
        for _ in range(20):
            values.add_(1)
            began, start = time.process_time(), time.monotonic()
            while time.monotonic() - start < 0.002:
                time.sleep(0.001)
            spent += time.process_time() - began
        torch.set_num_threads(before)
        return spent

    if len(cpu_contention.available_cpus()) < 2:
        pytest.skip("one processor: OpenMP never spins for long")
    spinning = processor_seconds()
    team = IdleTeam(OPENMP, 2)
    team.begin()
    sleeping = processor_seconds()
    team.end()
    assert sleeping < spinning / 2
    assert processor_seconds() > 2 * sleeping, "and they spin again after it"
