"""One measured training: a real command in a process of its own, timed and watched."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import memory

from peers import Job, Line, Peer, Update
from peers.environments import NoPeer, home, programs_of

LIMIT_SECONDS = 600


@dataclass(frozen=True)
class Measured:
    """What one training showed."""

    tokens_per_second: float
    """Real target tokens."""
    tokens_per_update: float
    peak_megabytes: float
    """Resident memory of the whole process tree, start-up included."""
    seconds: float
    """Of the whole process."""


def measure(
    peer: Peer, precision: str, pieces: Path, warm_up: int, updates: int, threads: int
) -> Measured:
    """Train for `warm_up` + `updates` updates and measure the latter.

    Raises:
        NoPeer: the command fails, or its output tells of too few updates.
    """
    (home() / "work").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home() / "work") as work:
        job = Job(
            programs=programs_of(peer), pieces=pieces, work=Path(work), precision=precision,
            prepared=home() / "prepared" / f"{peer.name}-{pieces.name}",
            updates=warm_up + updates, threads=threads,
        )  # fmt: skip
        prepare(peer, job)
        began = time.perf_counter()
        lines, peak = run(peer.train(job), variables(peer, threads), job.work, peer.name)
        took = time.perf_counter() - began
        found = list(peer.read(lines, job))
    return judged(found, warm_up, updates, peak, took)


def judged(
    found: Sequence[Update], warm_up: int, updates: int, peak: float, seconds: float
) -> Measured:
    """The speed after the warm-up: tokens of the updates after it by the time since its end.

    Raises:
        NoPeer: fewer updates than were asked for.
    """
    if len(found) < warm_up + updates:
        raise NoPeer(f"told of {len(found)} updates, not {warm_up + updates}")
    measured = found[warm_up : warm_up + updates]
    tokens = sum(update.tokens for update in measured)
    took = measured[-1].seconds - found[warm_up - 1].seconds
    return Measured(tokens / took, tokens / updates, peak, seconds)


def prepare(peer: Peer, job: Job) -> None:
    """What the toolkit must do with the pieces once."""
    mark = job.prepared / "done"
    if mark.exists():
        return
    shutil.rmtree(job.prepared, ignore_errors=True)
    job.prepared.mkdir(parents=True)
    for command in peer.prepare(job):
        run(command, variables(peer, job.threads), job.work, peer.name)
    mark.touch()


def variables(peer: Peer, threads: int) -> dict[str, str]:
    """The environment of a toolkit's commands."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    kept |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    kept |= {"CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}
    kept |= {"TOKENIZERS_PARALLELISM": "false", "MT_CACHE": str(home() / "cache")}
    return {**kept, **peer.variables}


def run(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, name: str
) -> tuple[list[Line], float]:
    """The lines that a command printed, with when they came, and its peak memory in MB.

    Raises:
        NoPeer: it failed; the log is kept.
    """
    child = subprocess.Popen(
        command, env=environment, cwd=folder, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    lines = []
    with ending(child), memory.Watch(child, memory.resident, 0.1) as watch:
        assert child.stdout is not None
        for text in child.stdout:
            lines.append(Line(time.perf_counter(), text.rstrip("\n")))
        child.wait()
    if child.returncode:
        log = home() / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        log.write_text("\n".join([" ".join(command), *(line.text for line in lines)]))
        last = next((x.text.strip() for x in reversed(lines) if x.text.strip()), "silently")
        raise NoPeer(f"ended with {child.returncode}: {last[:200]} (see {log})")
    return lines, watch.peak


@contextlib.contextmanager
def ending(child: subprocess.Popen[str]) -> Iterator[None]:
    """Nothing of a child is left behind, and it has only so long."""

    def stop() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    timer = threading.Timer(LIMIT_SECONDS, stop)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        stop()
