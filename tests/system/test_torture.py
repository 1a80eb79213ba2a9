"""A run that is killed at any moment, again and again, ends as if nothing had happened."""

from __future__ import annotations

import itertools
import json
import random

import pytest
from tortured_runs import RUNS, SLOW

from mt.training import determinism_trace

MOST_KILLS = 5


def killed_at_random(torture, kills, seed, figure):
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
    counts = f"{torture.kills} kills, {torture.resumes} resumes, {torture.runs} runs"
    figure(f"{counts} (seed {seed}): all bit-identical")


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
def test_twenty_kills_at_random(torture, figure):
    killed_at_random(torture, 20, 20, figure)


@pytest.mark.parametrize(
    "fault", ["fsync:14:kill", "renamed:2:kill", "best:2:kill", "trash:1:kill"]
)
def test_a_kill_within_a_save(torture, fault):
    run = torture.new("point")
    assert not torture.run("short", run, fault)
    assert torture.run("short", run)
    torture.check("short", run)


def test_a_kill_while_a_checkpoint_is_written_again_does_not_lose_it(torture):
    """One that a signal saved before its validation, and that is now the best."""
    run = torture.new("again")
    torture.whole("short")
    assert torture.end("short", run, "validation:1:term") == 143
    assert not torture.run("short", run, "trash:1:kill")
    assert torture.run("short", run)
    assert torture.told(run).count(f"resuming {run} after step 4\n") == 2
    torture.check("short", run)


@pytest.mark.torture
@pytest.mark.parametrize("part", [1, 2, 3, 4])
def test_fifty_kills_at_random(torture, part, seed, figure):
    killed_at_random(torture, 50, f"{seed}/{part}", figure)


@pytest.mark.torture
@pytest.mark.parametrize(
    "point", ["write", "fsync", "rename", "renamed", "replace", "best", "trash"]
)
def test_a_kill_at_each_point_of_each_save(torture, point, figure):
    """The same point kills it twice in a row; then it is let go."""
    torture.whole("short")  # so that the corpus is in the cache
    for number in itertools.count(1):
        run, fault = torture.new(point), f"{point}:{number}:kill"
        if torture.run("short", run, fault):
            break  # there is no such passage
        torture.run("short", run, fault)
        assert torture.run("short", run)
        torture.check("short", run)
    figure(f"{point}: killed at each of {number - 1} passages: all bit-identical")
    assert number > 1
