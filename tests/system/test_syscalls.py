"""A save that is killed or refused at any of its system calls loses nothing; needs strace."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from traced import calls, require_strace, traced

CALLS = [
    "mkdir", "mkdirat", "openat", "write", "pwrite64", "fsync", "rename", "renameat", "renameat2",
    "unlink", "unlinkat", "rmdir",
]  # fmt: skip
"""Those that may change a disk; a machine has only some of them."""
STEP = 8
"""The step of the save: the best so far, after which an old one is deleted."""
MOST_ERRORS = 20
"""Calls that fail, one a run; a save has fewer."""


def save(path, run, log, cache, gate, and_end):
    """Train on, wait at the gate before the first save, save, and end at once if so wished."""
    from mt.cli import main
    from mt.training import loop

    os.environ["MT_CACHE"] = str(cache)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    loop.RETRY_SECONDS = (0.0, 0.0, 0.0)
    real, saves = loop.save_checkpoint, itertools.count()
    waiting = os.open(gate, os.O_RDWR)  # a traced call of `openat` would count

    def traced_save(*arguments):
        if next(saves) == 0:
            gate.with_suffix(".ready").touch()
            os.read(waiting, 1)
        real(*arguments)
        if and_end:
            os._exit(0)

    loop.save_checkpoint = traced_save
    sys.exit(main.run(["train", str(path), "--run", str(run), "--trace"]))


@pytest.fixture(scope="module")
def stopped(torture):
    """A short run that was stopped before the step."""
    require_strace()
    torture.whole("short")
    run = torture.new("before")
    assert torture.end("short", run, f"update:{STEP - 1}:term") == 143
    return run


def traced_save(torture, stopped, options, and_end):
    """A copy of the run, the exit code of a save in it, and the log of its system calls."""
    run = torture.new("traced")
    shutil.copytree(stopped, run)
    gate = run.with_suffix(".gate")
    os.mkfifo(gate)
    log = run.with_suffix(".log")
    cache = torture.folder / "cache"
    order = (torture.recipe("short"), run, log, cache, gate, and_end)
    process = torture.server.Process(target=save, args=order)
    process.start()
    while not gate.with_suffix(".ready").exists():
        process.join(0.005)
        assert process.is_alive(), log.read_text()
    strace = run.with_suffix(".strace")
    with traced(process.pid, strace, *options):
        os.write(opened := os.open(gate, os.O_RDWR), b"\n")  # it waits for no reader
        process.join(60)
        os.close(opened)
    assert process.exitcode is not None, "hangs"
    assert "Traceback" not in log.read_text()
    return run, process.exitcode, strace


def test_all_is_on_the_disk_before_a_name_says_so(torture, stopped):
    """And before `best` names it, or an old one is deleted: a power cut cannot lose both."""
    run, code, log = traced_save(torture, stopped, ["-e", "trace=?fsync,/^(rename|unlink)"], True)
    assert code == 0
    folder = run / "checkpoints"
    final = folder / f"step-{STEP:08d}"
    order = calls(log)
    paths = [path for _, path in order]
    named = next(i for i, path in enumerate(paths) if path[1:] == [str(final)])
    hidden = Path(paths[named][0])
    forced = [path[0] for name, path in order[:named] if name == "fsync"]
    assert {path.name for path in final.iterdir()} == {
        "MANIFEST.json", "model.safetensors", "training.safetensors", "state.json",
    }  # fmt: skip
    for path in final.iterdir():
        assert str(hidden / path.name) in forced
    assert str(hidden) in forced
    later = order[named + 1 :]
    first = later.index(("fsync", [str(folder)]))
    changes = [i for i, (name, _) in enumerate(later) if name != "fsync"]
    assert first < min(changes)
    best = next(i for i, (_, path) in enumerate(later) if path[1:] == [str(run / "best")])
    deleted = next(i for i, (_, path) in enumerate(later) if "/.trash-" in "".join(path))
    assert ("fsync", [str(run)]) in later[best:deleted]


@pytest.mark.torture
@pytest.mark.parametrize("name", CALLS)
def test_a_kill_at_each_system_call_of_a_save(torture, stopped, name, figure):
    for number in itertools.count(1):
        inject = f"inject=?{name}:signal=SIGKILL:when={number}"
        run, code, _ = traced_save(torture, stopped, ["-e", f"trace=?{name}", "-e", inject], True)
        assert code in (0, -signal.SIGKILL)
        assert torture.run("short", run)
        assert "resuming " in torture.told(run)
        torture.check("short", run)
        if code == 0:
            break
    figure(f"{name}: killed at each of {number - 1} calls: all bit-identical")


@pytest.mark.torture
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("name", ["mkdir", "write", "fsync", "rename"])
def test_an_error_of_each_system_call_of_a_save(torture, stopped, name, error, figure):
    """The run goes on, after a warning, or ends with 5; then it resumes."""
    ends = []
    for number in itertools.count(1):
        inject = f"inject=?{name}:error={error}:when={number}"
        run, code, log = traced_save(
            torture, stopped, ["-e", f"trace=?{name}", "-e", inject], False
        )
        if "(INJECTED)" not in log.read_text() or number > MOST_ERRORS:
            break
        ends.append(code)
        assert code in (0, 5), run.with_suffix(".log").read_text()
        assert code == 0 or "mt: error[DISK" in run.with_suffix(".log").read_text()
        assert torture.run("short", run)
        torture.check("short", run)
    assert ends
    counts = f"{ends.count(0)} went on, {ends.count(5)} ended with 5"
    figure(f"{name}, {error}: {len(ends)} calls failed, {counts}: all bit-identical")
