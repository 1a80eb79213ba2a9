"""Ctrl-C at any moment ends a command without a trace and with its code."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pty
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tiny_run

from mt.cli import main
from mt.decoding import worker_pool
from mt.decoding.types import EngineOptions
from mt.runtime import signals
from mt.runtime.distributed import World

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def run(code, *arguments, **more):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, **more
    )


# Raises SIGINT at the given call of a Python function; of none it prints how many there were.
AT_A_CALL = """
import signal, sys
from mt.__main__ import main
calls, at = 0, int(sys.argv.pop(1))
def count(frame, event, argument):
    global calls
    if event == "call":
        calls += 1
        if calls == at:
            signal.raise_signal(signal.SIGINT)
sys.setprofile(count)
try:
    main()
finally:
    sys.setprofile(None)
    if not at:
        print(calls, file=sys.stderr)
"""


def test_ctrl_c_at_any_moment_of_a_command_is_reported_in_one_line():
    """From its first imports to its end."""
    whole = run(AT_A_CALL, 0, "--help")
    assert whole.returncode == 0
    count = int(whole.stderr)
    moments = [60, *(count * share // 100 for share in (10, 40, 70, 90))]
    assert sorted(set(moments)) == moments
    for moment in moments:
        done = run(AT_A_CALL, moment, "--help")
        assert (done.returncode, done.stderr) == (130, "mt: stopped\n"), moment


LISTENING = """
import os, signal, sys, time
from mt.runtime import signals
signals.install()
"""


def test_one_that_a_destructor_drops_comes_again():
    code = (
        LISTENING
        + """
class Falling:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
try:
    Falling()
    print("dropped", flush=True)
    while True:
        time.sleep(0.01)
except KeyboardInterrupt:
    print("raised again")
"""
    )
    done = run(code)
    assert (done.stdout, done.stderr) == ("dropped\nraised again\n", "")


def test_another_exception_that_nobody_takes_is_still_reported():
    code = (
        LISTENING
        + """
class Falling:
    def __del__(self):
        raise ValueError("of a destructor")
Falling()
"""
    )
    assert "ValueError: of a destructor" in run(code).stderr


def test_a_second_one_ends_it_at_once():
    code = (
        LISTENING
        + """
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    signal.raise_signal(signal.SIGINT)
print("not reached")
"""
    )
    done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "mt: stopped\n")


def test_where_it_is_ignored_it_stays_ignored():
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
        + LISTENING
        + """
signals.exit_on_signals()
signal.raise_signal(signal.SIGINT)
print("goes on")
"""
    )
    done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "goes on\n", "")


def test_what_fails_because_of_it_is_no_bug(monkeypatch, capsys):
    """As when it comes within the import of a library in C."""
    monkeypatch.setattr(main.importlib, "import_module", None)
    monkeypatch.setattr(signals, "_came", [signal.SIGINT])

    def failing(*_):
        raise SystemError("initialization of _C raised unreported exception")

    monkeypatch.setattr(main.typer.main, "get_command", failing)
    assert main.run(["config", "recipe.yaml"]) == 130
    assert capsys.readouterr().err == "mt: stopped\n"


# Readline calls this hook when the prompt is there and it does not yet wait for a key.
BEFORE_THE_WAIT = """
import ctypes, readline
from mt.cli import interactive
from mt.runtime import signals
from mt.decoding.types import EngineOptions
signals.install()
come = ctypes.cast(ctypes.pythonapi.PyErr_SetInterrupt, ctypes.c_void_p)
readline.set_pre_input_hook(None)
ctypes.c_void_p.in_dll(ctypes.CDLL(readline.__file__), "rl_pre_input_hook").value = come.value
interactive.translate_interactively(None, EngineOptions())
print("ended")
"""


def test_ctrl_c_between_the_prompt_and_the_wait_for_a_key_ends_the_conversation():
    readline = pytest.importorskip("readline")
    if not hasattr(readline, "__file__") or not _has_hook(readline.__file__):
        pytest.skip("this readline has no such hook")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", BEFORE_THE_WAIT]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=ENVIRONMENT,
        start_new_session=True,
    ) as child:  # fmt: skip
        os.close(theirs)
        told = b""
        try:
            while not told.endswith(b"ended\r\n") and select.select([ours], [], [], 60)[0]:
                told += os.read(ours, 65536)
            assert b"> " in told
            assert child.wait(60) == 0
        finally:
            child.kill()
            os.close(ours)


def _has_hook(path):
    try:
        ctypes.c_void_p.in_dll(ctypes.CDLL(path), "rl_pre_input_hook")
    except (OSError, ValueError):
        return False
    return True


def test_the_processes_of_a_pool_never_see_it(tmp_path, monkeypatch):
    """Ctrl-C goes to all processes of a terminal, those that still import Python, too."""
    monkeypatch.setattr(worker_pool, "multiprocessing", multiprocessing)
    options = EngineOptions(precision="fp32", threads=1, device="cpu")
    worker = worker_pool._start_worker("native", tiny_run.make(tmp_path), options)
    os.kill(worker.process.pid, signal.SIGINT)
    searcher = worker_pool.WorkerPoolSearcher([worker])
    searcher.opened()
    assert worker.process.is_alive()


def test_a_signal_does_not_wait_for_a_long_call():
    """Such as that of SentencePiece, which learns for minutes."""
    goes_on = threading.Event()

    def call():
        os.kill(os.getpid(), signal.SIGINT)
        goes_on.wait()

    with pytest.raises(KeyboardInterrupt):
        signals.run_in_thread(call)
    assert signals.has_left_call()
    goes_on.set()
    assert signals.run_in_thread(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        signals.run_in_thread(lambda: 1 // 0)
    assert not signals.has_left_call()


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP", "SIGTERM"])
def test_what_a_parent_ignores_stays_ignored(name):
    """As `nohup` ignores SIGHUP; in training, SIGTERM and SIGINT are handled all the same."""
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_IGN)
    try:
        assert number not in signals._own_signals()
        with signals.stop_requests(World()):
            assert (signal.getsignal(number) is signal.SIG_IGN) == (name == "SIGHUP")
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_each_signal_to_stop_unwinds_the_program_and_has_its_code(name):
    code = (
        LISTENING
        + f"""
from mt.cli import main
from mt.config import recipe
signal.signal(signal.{name}, signal.SIG_DFL)  # these tests may run under nohup
def load(*arguments):
    try:
        signal.raise_signal(signal.{name})
    finally:
        print("unwound")
recipe.load = load
sys.argv = ["mt", "config", "recipe.yaml"]
main.main()
"""
    )
    done = run(code)
    expected = (128 + getattr(signal, name), "unwound\n", "mt: stopped\n")
    assert (done.returncode, done.stdout, done.stderr) == expected


@pytest.mark.parametrize("size", [1, 2])
def test_a_rank_that_fails_survives_the_signal_of_its_launcher(size):
    """It comes within milliseconds of another rank's death, before this one has reported it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(RuntimeError), signals.stop_requests(World(0, size)) as request:
            raise RuntimeError("Connection closed by peer")
        handlers = {number: signal.getsignal(number) for number in before}
        assert handlers == (before if size == 1 else dict.fromkeys(before, request.handle))
        with signals.stop_requests(World(0, size)):
            pass
        assert {number: signal.getsignal(number) for number in before} == handlers
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
