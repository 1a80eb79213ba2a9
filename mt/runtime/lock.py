"""The lock of a run or cache folder, which one process holds at a time."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from mt.errors import MachineError
from mt.runtime import files
from mt.runtime.console import warn_once


@contextlib.contextmanager
def lock(path: Path, wait: bool = False) -> Iterator[None]:
    """Lock a file, until the process ends at the latest; warn once where there are no locks.

    Raises:
        MachineError: another process has locked it and `wait` is false.
    """
    files.make_folder(path.parent)
    with files.os_errors_as_mt_errors(path):
        supported = _supports_locks(path)
    if not supported:
        what = "this file system has no locks"
        warn_once("LOCK", f"{path.parent}: {what}; let no other process of mt write there")
        yield
        return
    with files.os_errors_as_mt_errors(path):
        try:
            acquired = FileLock(path, timeout=-1 if wait else 0).acquire()
        except Timeout:
            owner = ""
            with contextlib.suppress(PermissionError):  # Windows shows no locked file
                owner = path.read_text(encoding="utf-8", errors="replace").strip()
            what = f"in use by {owner or 'another process'}"
            advice = "wait for it to end, or train into another folder with --run"
            raise MachineError("RUN-LOCKED", path.parent, what, advice) from None
    with acquired:
        with files.os_errors_as_mt_errors(path), contextlib.suppress(PermissionError):
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            owner = f"process {os.getpid()} on {socket.gethostname()} since {now}\n"
            path.write_text(owner, encoding="utf-8")
        yield


def _supports_locks(path: Path) -> bool:
    """Whether flock works on a file, which is created."""
    try:
        import fcntl
    except ImportError:  # Windows has locks of its own
        return True
    with open(path, "ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in files.UNSUPPORTED
    return True
