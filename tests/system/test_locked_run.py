"""A run directory that a process is training in: another is refused, and reading it is safe."""

from __future__ import annotations

import os
import signal
import socket

import pytest
from tortured_runs import SLOW

from mt.cli import main


def test_a_second_training_is_refused_and_the_first_goes_on(torture):
    torture.whole("short")
    run = torture.new("locked")
    first = torture.hold("short", run, 5)
    log = run.with_suffix(".log")
    before = log.read_text()
    assert torture.end("short", run) == 5
    error, advice = log.read_text().removeprefix(before).splitlines()
    assert error.startswith(f"mt: error[RUN-LOCKED] {run}: in use by process {first.pid} on ")
    assert socket.gethostname() in error
    assert "wait for it to end" in advice
    os.kill(first.pid, signal.SIGCONT)
    first.join(60)
    assert first.exitcode == 0
    torture.check("short", run)


def test_the_lock_of_a_killed_training_is_free(torture):
    torture.whole("short")
    run = torture.new("freed")
    first = torture.hold("short", run, 5)
    os.kill(first.pid, signal.SIGKILL)
    first.join(60)
    assert torture.run("short", run)
    torture.check("short", run)


@pytest.mark.torture
def test_translating_while_a_run_is_trained_reads_whole_checkpoints(torture, figure, capsys):
    """Each of them is deleted soon after it was written."""
    (torture.folder / "lines").write_text("a\n")
    count = 0
    for _ in range(10):
        run = torture.new("read")
        process = torture.start("ema", run, SLOW)
        while not list((run / "checkpoints").glob("step-*")):
            process.join(0.01)
        while process.is_alive():
            for choice in (["--checkpoint", "last"], []):
                command = ["translate", str(run), "-i", str(torture.folder / "lines"), *choice]
                code = main.run([*command, "--threads", "1", "--device", "cpu"])
                out, err = capsys.readouterr()
                assert code == 0, err
                assert out.count("\n") == 1
                count += 1
        assert process.exitcode == 0
        torture.check("ema", run)
    figure(f"{count} translations beside a training: all read a whole checkpoint")
