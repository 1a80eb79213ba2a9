"""A signal in any phase of a training ends it soon, with its code, and loses nothing."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time

import pytest
from tortured_runs import RUNS, SLOW

TERM = 128 + signal.SIGTERM


def stop(torture, fault, cache="cache"):
    """A short run that is stopped by a fault and begun again; what it said when it stopped."""
    torture.whole("short")
    run = torture.new("stopped")
    number = signal.SIGINT if fault.endswith(":int") else signal.SIGTERM
    assert torture.end("short", run, fault, cache=cache) == 128 + number, torture.told(run)
    said = torture.told(run).splitlines()[-1]
    assert torture.end("short", run, cache=cache) == 0
    torture.check("short", run)
    return said


@pytest.mark.parametrize("phase", ["reading", "learning", "encoding"])
def test_a_signal_while_preparing_keeps_nothing_half_made(torture, phase):
    cache = f"cache-{next(torture.numbers)}"
    said = stop(torture, f"{phase}:1:term", cache)
    assert said == "stopped while preparing the data; nothing was kept of it"


@pytest.mark.parametrize(
    ("fault", "step"),
    [
        ("update:1:term", 1), ("update:5:int", 5), ("validation:1:term", 4),
        ("translation:1:term", 4), ("fsync:14:term", None), ("trash:1:term", None),
        *(
            pytest.param(fault, step, marks=pytest.mark.torture)
            for fault, step in [
                ("autotuning:1:term", 0), ("write:2:term", None), ("rename:1:term", None),
                ("replace:9:int", None), ("renamed:2:term", None), ("best:1:term", None),
            ]
        ),
    ],
)  # fmt: skip
def test_a_signal_saves_and_ends(torture, fault, step):
    said = stop(torture, fault)
    name = "SIGINT" if fault.endswith(":int") else "SIGTERM"
    assert said.startswith(f"stopped by {name} at step {'' if step is None else step}")
    assert ", saved in " in said or " at step 0, " in said


def test_a_signal_while_averaging_ends_before_the_average_is_validated(torture):
    said = stop(torture, "averaging:1:term")
    assert said.startswith("stopped by SIGTERM at step ")


@pytest.mark.parametrize(
    "fault", ["fsync:14:terms", pytest.param("write:3:terms", marks=pytest.mark.torture)]
)
def test_a_second_signal_ends_a_save_at_once(torture, fault):
    said = stop(torture, fault)
    assert said == "stopped at once, by a second signal; the last save is intact"


@pytest.mark.torture
@pytest.mark.parametrize("part", [1, 2, 3, 4])
def test_fifty_signals_at_random(torture, part, seed, figure):
    """SIGTERM or SIGINT, some of them while a save is slow; up to five to a run."""
    chance = random.Random(f"{seed}/{part}")
    names, stops, saved, runs = itertools.cycle(RUNS), 0, 0, 0
    while stops < 50:
        name, fault = next(names), chance.choice(["", SLOW])
        seconds, run = torture.whole(name, fault)["seconds"], torture.new(name)
        for attempt in range(6):
            number = chance.choice([signal.SIGTERM, signal.SIGINT])
            after = chance.uniform(0, seconds) if attempt < 5 else None
            code = torture.end(name, run, fault, after, number)
            assert code in (0, 128 + number), torture.told(run)
            if code == 0:
                break
            stops += 1
            saved += ", saved in " in torture.told(run).splitlines()[-1]
        torture.check(name, run)
        runs += 1
    counts = f"{stops} signals, {saved} of them with a save, {runs} runs"
    figure(f"{counts} (seed {seed}/{part}): all ended with their code, all bit-identical")


@pytest.mark.torture
def test_a_run_that_is_held_for_a_while_goes_on(torture, seed):
    """SIGSTOP, and SIGCONT some seconds later."""
    chance = random.Random(seed)
    for name in ("ema", "patience"):
        torture.whole(name)
        run = torture.new(name)
        process = torture.hold(name, run, chance.randint(1, 12))
        time.sleep(5)  # what is tested is the time itself
        os.kill(process.pid, signal.SIGCONT)
        process.join(120)
        assert process.exitcode == 0
        torture.check(name, run)
