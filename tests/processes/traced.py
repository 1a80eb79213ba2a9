"""A process whose system calls strace shows, fails or answers with a kill."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest


def require_strace() -> None:
    """Skip a test where strace is missing or may not trace."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed")
    done = subprocess.run([program, "-qq", "true"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"strace may not trace here ({done.stderr.strip()[:80]})")


@contextlib.contextmanager
def traced(pid: int, log: Path, *options: str):
    """Trace a process, which waits for something, and its threads; the calls go to a file."""
    command = ["strace", "-f", "-qq", "-y", "-s", "0", "-o", str(log), "-p", str(pid), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
        try:
            while not all(map(_is_traced, Path(f"/proc/{pid}/task").iterdir())):
                assert tracer.poll() is None, tracer.stderr.read()
                time.sleep(0.005)
            yield
            tracer.wait(60)
        finally:
            tracer.kill()


def _is_traced(task: Path) -> bool:
    return "TracerPid:\t0\n" not in (task / "status").read_text()


def calls(log: Path) -> list[tuple[str, list[str]]]:
    """The system calls of a log that succeeded: names, and the paths in each."""
    found = []
    for line in log.read_text().splitlines():
        match = re.match(r"\d+ +(\w+)\((.*)\) += \d+", line)
        if match:
            paths = re.findall(r'<(/[^>]*)>|"(/[^"]*)"', match[2])
            found.append((match[1], [a or b for a, b in paths]))
    return found
