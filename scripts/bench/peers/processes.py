"""One measured training: a real command in a process of its own, timed and watched."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import harness

from peers import Command, Job, Peer, Update
from peers.environments import NoPeer, home, programs_of

LIMIT_SECONDS = 600


@dataclass(frozen=True)
class Measured:
    """What one training showed."""

    tokens_per_second: float
    """Target tokens, padding not counted."""
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
        NoPeer: the command fails, or its output shows too few updates.
    """
    (home() / "work").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home() / "work") as work:
        job = Job(
            programs=programs_of(peer), pieces=pieces, work=Path(work), precision=precision,
            prepared=home() / "prepared" / f"{peer.name}-{pieces.name}",
            updates=warm_up + updates, threads=threads,
        )  # fmt: skip
        prepare(peer, job)
        finished = run(peer.train(job), peer, job)
        found = list(peer.read(finished.lines, job))
    return summarize(found, warm_up, updates, finished.peak, finished.seconds)


def summarize(
    found: Sequence[Update], warm_up: int, updates: int, peak: float, seconds: float
) -> Measured:
    """Return the speed after the warm-up: tokens of the updates after it by the time since its end.

    Raises:
        NoPeer: there are too few updates.
    """
    if len(found) < warm_up + updates:
        raise NoPeer(f"reported {len(found)} updates, not {warm_up + updates}")
    measured = found[warm_up : warm_up + updates]
    tokens = sum(update.tokens for update in measured)
    took = measured[-1].seconds - found[warm_up - 1].seconds
    return Measured(tokens / took, tokens / updates, peak, seconds)


def prepare(peer: Peer, job: Job) -> None:
    """Let the toolkit prepare the pieces, once."""
    mark = job.prepared / "done"
    if mark.exists():
        return
    shutil.rmtree(job.prepared, ignore_errors=True)
    job.prepared.mkdir(parents=True)
    for command in peer.prepare(job):
        run(command, peer, job)
    mark.touch()


def run(command: Command, peer: Peer, job: Job) -> harness.Finished:
    """Run a command of a toolkit in the folder of its training.

    Raises:
        NoPeer: it failed; the log is kept.
    """
    threads = {name: str(job.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    variables = {
        **threads, "PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore", "TOKENIZERS_PARALLELISM": "false",
        "MT_CACHE": str(home() / "cache"), **peer.variables,
    }  # fmt: skip
    try:
        return harness.run(
            command, variables, measure=harness.resident, every=0.1, limit=LIMIT_SECONDS,
            cwd=job.work, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except harness.CommandError as error:
        log = home() / "logs" / f"{peer.name}.log"
        log.parent.mkdir(exist_ok=True)
        log.write_text(f"{' '.join(command)}\n{error.output}", encoding="utf-8")
        last = (error.output.strip() or "silently").splitlines()[-1].strip()
        raise NoPeer(f"failed: {last[:200]} (see {log})") from None
