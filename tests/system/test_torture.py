"""A run that is killed at any moment, again and again, ends as if nothing had happened.

Each attempt is a process of its own that a fork server makes, so that it need not import torch.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from resumable_run import attempt, bits, written

from mt.checkpoints import checkpoint
from mt.training import determinism_trace

SLOW = "*:*:sleep0.004"
"""At each step of each write: saves then fill most of the time."""
MOST_KILLS = 5
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
        log = run.with_suffix(".log")
        order = (self.recipe(name), run, log, fault, self.folder / "cache")
        process = self.server.Process(target=attempt, args=order)
        process.start()
        process.join(kill_after if kill_after is not None else 120)
        if process.is_alive():
            assert kill_after is not None, f"hangs\n{log.read_text()}"
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        told = log.read_text() if log.exists() else ""
        assert process.exitcode in (0, -signal.SIGKILL), told
        assert "Traceback" not in told
        if process.exitcode == 0:
            return True
        self.kills += 1
        # Whatever has its final name is whole.
        for path in (run / "checkpoints").glob("[!.]*"):
            assert checkpoint.integrity_error(path) is None
        return False

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
        self.resumes += run.with_suffix(".log").read_text().count("resuming ")


@pytest.fixture(scope="module")
def torture(tmp_path_factory, process_server):
    return Torture(tmp_path_factory.mktemp("torture"), process_server)


def killed_at_random(torture, kills, seed, capsys):
    """Run after run, each killed up to five times at random, half of them mostly in a save."""
    chance = random.Random(seed)
    names = itertools.cycle(RUNS)
    faults = itertools.cycle([*[SLOW, ""] * 3, *["", SLOW] * 3])  # each with each run in turn
    torture.kills = torture.resumes = torture.runs = 0
    while torture.kills < kills:
        name, fault = next(names), next(faults)
        seconds, run = torture.whole(name, fault)["seconds"], torture.new(name)
        for _ in range(MOST_KILLS):
            if torture.run(name, run, fault, chance.uniform(0, seconds)):
                break
        else:
            assert torture.run(name, run)
        torture.check(name, run)
    with capsys.disabled():
        counts = f"{torture.kills} kills, {torture.resumes} resumes, {torture.runs} runs"
        print(f"\n{counts} (seed {seed}): all bit-identical")


@pytest.mark.slow
def test_the_tortured_runs_are_what_they_are_named_for(torture):
    """Else the tests below would prove little."""
    states = {}
    for name in RUNS:
        run = torture.whole(name)["run"]
        last = sorted((run / "checkpoints").glob("step-*"))[-1]
        states[name] = json.loads((last / "state.json").read_text())
        assert states[name]["step"] >= 12
        assert determinism_trace.read_trace(run).keys() == set(range(1, states[name]["step"] + 1))
    assert "training.patience" in states["patience"]["finished"]
    assert states["fp16"]["scaler"]["scale"] > 0
    assert states["bf16"]["scaler"] is None
    slow = torture.whole("ema", SLOW)
    assert slow["bits"] == torture.whole("ema")["bits"]
    assert slow["seconds"] > torture.whole("ema")["seconds"]


@pytest.mark.slow
def test_twenty_kills_at_random(torture, capsys):
    killed_at_random(torture, 20, 20, capsys)


@pytest.mark.parametrize(
    "fault", ["fsync:14:kill", "renamed:2:kill", "best:2:kill", "trash:1:kill"]
)
def test_a_kill_within_a_save(torture, fault):
    run = torture.new("point")
    assert not torture.run("short", run, fault)
    assert torture.run("short", run)
    torture.check("short", run)


@pytest.mark.torture
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_fifty_kills_at_random(torture, seed, capsys):
    killed_at_random(torture, 50, seed, capsys)


@pytest.mark.torture
@pytest.mark.parametrize(
    "point", ["write", "fsync", "rename", "renamed", "replace", "best", "trash"]
)
def test_a_kill_at_each_point_of_each_save(torture, point, capsys):
    """The same point kills it twice in a row; then it is let go."""
    torture.whole("short")  # so that the corpus is in the cache
    for number in itertools.count(1):
        run, fault = torture.new(point), f"{point}:{number}:kill"
        if torture.run("short", run, fault):
            break  # there is no such passage
        torture.run("short", run, fault)
        assert torture.run("short", run)
        torture.check("short", run)
    with capsys.disabled():
        print(f"\n{point}: killed at each of {number - 1} passages: all bit-identical")
    assert number > 1
