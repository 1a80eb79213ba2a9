"""Fault injection: kill, signal, fail or slow the program at a chosen file operation.

`MT_FAULT=POINT:NUMBER:ACTION`, such as `rename:2:kill` at the second rename of a folder,
`write:1:enospc`, `fsync:3:eio`, `fsync:*:sleep0.02` at each fsync; the point `*` is all of them.
Signals are `kill`, `term`, `int`, `hup`, `stop`, and `terms` for two of them; `mark` makes a point
of a function of `mt`.
`install` wraps the functions of the standard library; `mt` itself has no line of it. A process
whose `PYTHONPATH` has this folder is prepared by `sitecustomize`.
"""

from __future__ import annotations

import builtins
import errno
import functools
import importlib
import os
import pathlib
import signal
import time
from collections import Counter

FOLDER = str(pathlib.Path(__file__).parent)
SIGNALS = {
    "kill": [signal.SIGKILL], "term": [signal.SIGTERM], "int": [signal.SIGINT],
    "hup": [signal.SIGHUP], "terms": [signal.SIGTERM, signal.SIGTERM],
    "stop": [signal.SIGSTOP],
}  # fmt: skip
counts: Counter[str] = Counter()


def reach(point: str) -> None:
    """Count a point; do what MT_FAULT plans for it."""
    plan = os.environ.get("MT_FAULT")
    if not plan:
        return
    name, number, action = plan.split(":")
    counts[point] += 1
    if name not in (point, "*") or number not in (str(counts[point]), "*"):
        return
    for number in SIGNALS.get(action, []):
        os.kill(os.getpid(), number)
    if action in SIGNALS:
        return
    if action.startswith("sleep"):
        time.sleep(float(action.removeprefix("sleep")))
        return
    code = {"enospc": errno.ENOSPC, "eio": errno.EIO}[action]
    raise OSError(code, os.strerror(code))


def mark(point: str, module: str, name: str) -> None:
    """Make a fault point of each call of a function of `mt`."""
    home = importlib.import_module(module)
    function = getattr(home, name)

    @functools.wraps(function)
    def marked(*arguments, **more):
        reach(point)
        return function(*arguments, **more)

    setattr(home, name, marked)


def staged(path: object) -> bool:
    return pathlib.Path(path).name.startswith(".tmp-")


def install() -> None:
    """Wrap fsync, rename, replace, write_bytes and open, once."""
    if hasattr(os, "mt_faults"):
        return
    os.mt_faults = True  # type: ignore[attr-defined]
    rename, replace, open_ = os.rename, os.replace, builtins.open
    write_bytes = pathlib.Path.write_bytes

    def faulty_fsync(handle):
        reach("fsync")
        os.fstat(handle)  # no test cuts the power, and a real one takes milliseconds

    def faulty_rename(source, target, **more):
        rename(source, target, **more)
        if pathlib.Path(target).name.startswith(".trash-"):
            reach("trash")

    def faulty_replace(source, target, **more):
        best = pathlib.Path(target).name == "best"
        folder = pathlib.Path(source).is_dir()
        if staged(source):
            reach("best" if best else "rename" if folder else "replace")
        replace(source, target, **more)
        if staged(source) and folder:
            reach("renamed")

    def faulty_write_bytes(path, data):
        if staged(path):
            reach("write")
        return write_bytes(path, data)

    def faulty_open(file, mode="r", *rest, **more):
        if mode == "xb":
            reach("create")
        return open_(file, mode, *rest, **more)

    os.fsync, os.rename, os.replace = faulty_fsync, faulty_rename, faulty_replace
    pathlib.Path.write_bytes = faulty_write_bytes
    builtins.open = faulty_open


def environment(fault: str, *path: str) -> dict[str, str]:
    """The environment of a process with a fault, and folders on its import path."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([FOLDER, *path]), "MT_FAULT": fault}
