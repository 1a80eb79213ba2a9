"""Runs that are killed, or stopped by a signal, at a chosen or a random moment, and compared.

Each attempt is a process of its own that a fork server makes, so that it need not import torch.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from resumable_run import attempt, bits, written

from mt.checkpoints import checkpoint
from mt.training import determinism_trace

SLOW = "*:*:sleep0.004"
"""At each step of each write: saves then fill most of the time."""
SIZE = {"data__train": [{"kind": "demo", "size": 200}]}
RUNS = {
    "ema": {},
    "accumulation": {"batching__micro_tokens": 160, "training__ema": 0.0},
    "average": {"training__average": 4, "training__ema": 0.0},
    "patience": {
        "training__patience": 3, "training__validate_every": 3, "training__max_epochs": 50,
        "schedule__kind": "constant",
        "optimizer__learning_rate": 0.3,
    },
    "fp16": {"runtime__precision": "fp16"},
    "bf16": {"runtime__precision": "bf16"},
}  # fmt: skip
STOP_SECONDS = 10
"""The most that an attempt may take to end after a signal."""
SHORT = {
    "training__max_epochs": 1, "training__save_every": 3, "training__validate_every": 4,
    "training__keep_last": 1,
}  # fmt: skip
"""For kills at each point: every kind of save is in it, and not many of each."""


@dataclass
class Torture:
    """Makes, kills and compares runs."""

    folder: Path
    server: multiprocessing.context.ForkServerContext
    golden: dict[str, dict] = field(default_factory=dict)
    numbers: itertools.count = field(default_factory=itertools.count)
    kills = resumes = runs = 0

    def recipe(self, name):
        """The recipe of that name, written once."""
        folder = self.folder / name
        if not folder.exists():
            folder.mkdir()
            written(folder, **SIZE, **{**RUNS, "short": SHORT}[name])
        return folder / "recipe.yaml"

    def run(self, name, run, fault="", kill_after=None):
        """An attempt, killed after so many seconds if it still runs then; whether it ended."""
        code = self.end(name, run, fault, kill_after)
        assert code in (0, -signal.SIGKILL), self.told(run)
        self.kills += code != 0
        return code == 0

    def end(self, name, run, fault="", after=None, number=signal.SIGKILL, cache="cache"):
        """The exit code of an attempt, which gets a signal after so many seconds."""
        process = self.start(name, run, fault, cache)
        process.join(after if after is not None else 120)
        if process.is_alive():
            assert after is not None, f"hangs\n{self.told(run)}"
            self.wait_for_handlers(process, run)
            os.kill(process.pid, number)
            process.join(STOP_SECONDS)
            assert not process.is_alive(), f"does not stop\n{self.told(run)}"
        assert "Traceback" not in self.told(run)
        # Whatever has its final name is whole.
        for path in (run / "checkpoints").glob("[!.]*"):
            assert checkpoint.integrity_error(path) is None
        return process.exitcode

    def start(self, name, run, fault="", cache="cache"):
        """The process of an attempt."""
        run.with_suffix(".ready").unlink(missing_ok=True)
        order = (self.recipe(name), run, run.with_suffix(".log"), fault, self.folder / cache)
        process = self.server.Process(target=attempt, args=order)
        process.start()
        return process

    def hold(self, name, run, step):
        """The process of an attempt that holds itself before an update."""
        process = self.start(name, run, f"update:{step}:stop")
        while Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
            time.sleep(0.005)
        return process

    def wait_for_handlers(self, process, run):
        """Wait until an attempt handles signals."""
        while process.is_alive() and not run.with_suffix(".ready").exists():
            time.sleep(0.001)

    def told(self, run):
        log = run.with_suffix(".log")
        return log.read_text() if log.exists() else ""

    def whole(self, name, fault=""):
        """Bits, trace and seconds of an uninterrupted run."""
        key = f"{name}{fault and '-slow'}"
        if key not in self.golden:
            run = self.new(f"whole-{key}")
            if not self.golden:
                assert self.run(name, self.new("first"))  # learns the vocabulary
            began = time.monotonic()
            assert self.run(name, run, fault)
            seconds = time.monotonic() - began
            known = {
                "bits": bits(run),
                "trace": determinism_trace.read_trace(run),
                "seconds": seconds,
                "run": run,
            }
            self.golden[key] = known
        return self.golden[key]

    def new(self, name):
        return self.folder / f"run-{name}-{next(self.numbers)}"

    def check(self, name, run):
        """The run is as if nothing had happened, by what it left and by how it went."""
        whole, traced = self.whole(name), determinism_trace.read_trace(run)
        assert determinism_trace.first_difference(whole["trace"], traced) is None, run
        assert determinism_trace.summarize_equal(
            whole["trace"], traced
        ) == determinism_trace.summarize_equal(traced, traced)
        assert bits(run) == whole["bits"], run
        self.runs += 1
        self.resumes += self.told(run).count("resuming ")
