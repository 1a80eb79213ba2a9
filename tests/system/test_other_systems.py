"""The demo trains, translates and is evaluated without what only Linux, or only Unix, has.

This stands in for macOS and Windows as far as Linux can: modules and functions that they lack are
taken away from a process before `mt` is imported there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import resumable_run

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, os, shutil, signal, sys
import ctranslate2, datasets, rich.console, sacrebleu, sentencepiece, typer, torch._dynamo
import concurrent.futures.process, multiprocessing.util, pyarrow.dataset, torch.utils.tensorboard
from pathlib import Path

system, lines = sys.argv[1], json.loads(sys.argv[2])
del os.sched_getaffinity, os.sched_setaffinity, os.pidfd_open
sys.platform = "unknown"  # by their names, libraries would call what is not here
real_open, real_read = os.open, Path.read_text

def read_text(path, *arguments, **more):
    if str(path).startswith(("/proc", "/sys")):
        raise FileNotFoundError(2, "No such file or directory", str(path))
    return real_read(path, *arguments, **more)

def open_no_folder(path, *arguments, **more):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return real_open(path, *arguments, **more)

Path.read_text = read_text
if system == "windows":
    for name in [name for name in sys.modules if name.partition(".")[0] == "filelock"]:
        del sys.modules[name]  # it asks for fcntl again
    for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "syslog"):
        sys.modules[name] = None
    os.open = open_no_folder
    for name in ("fork", "chown", "getuid", "geteuid", "mkfifo", "killpg", "setsid", "WNOHANG"):
        delattr(os, name)
    for name in ("setitimer", "alarm", "pause", "pthread_sigmask", "sigwait", "SIGALRM", "SIGHUP",
                 "SIGKILL", "SIGUSR1", "SIGCHLD", "ITIMER_REAL"):
        delattr(signal, name)

from mt.cli import main
from mt.runtime import console, signals
console.protect_standard_streams()
signals.install()
print(json.dumps([main.run(line) for line in lines]))
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize("system", [pytest.param("macos", marks=pytest.mark.slow), "windows"])
def test_the_demo_runs_without_what_another_system_lacks(system, tmp_path):
    recipe = resumable_run.written(
        tmp_path,
        training__max_epochs=1,
        data__test={"test": {"kind": "demo", "split": "test", "size": 5}},
    )
    (tmp_path / "text").write_text("A boy eats an apple.\n\nGirls sing.\n", encoding="utf-8")
    run, folder = str(tmp_path / "run"), str(tmp_path / "folder")
    text = str(tmp_path / "text")
    lines = [
        ["train", str(recipe), "--run", run],
        ["train", str(recipe), "--run", run],  # which finds that it has ended
        ["translate", run, "-i", text, "-o", str(tmp_path / "out"), "--device", "cpu"],
        ["translate", run, "-i", text, "-o", str(tmp_path / "out"), "--device", "cpu", "--force"],
        ["eval", run, "--json"],
        ["export", run, "--to", "ctranslate2", "-o", folder, "--sample", text],
        ["translate", folder, "-i", text, "-o", str(tmp_path / "again")],
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["MT_CACHE"] = str(tmp_path / "cache")  # with locks of another kind than on Linux
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, system, json.dumps(lines)],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0] * len(lines), done.stderr
    assert "Traceback" not in done.stderr
    for name in ("out", "again"):
        assert (tmp_path / name).read_text(encoding="utf-8").count("\n") == 3
