"""A file system of a few pages in memory, which only this process has; Linux alone has it."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import pytest

PAGE = os.sysconf("SC_PAGE_SIZE")
NEW_MOUNTS, NEW_USER = 0x00020000, 0x10000000
REMOUNT, PRIVATE, RECURSIVE = 32, 1 << 18, 16384


def require() -> None:
    """Skip a test where a user may not mount in a name space of his own."""
    command = ["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if done.returncode:
        pytest.skip(f"no name spaces of users here ({done.stderr.strip()[:80]})")


def mount(folder: Path) -> None:
    """Put an empty file system at a folder, in a process without threads; it ends with it."""
    user, group = os.getuid(), os.getgid()
    _call("unshare", NEW_USER | NEW_MOUNTS)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _call("mount", b"none", b"/", None, PRIVATE | RECURSIVE, None)
    _call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=256m")


def leave_free(folder: Path, pages: int) -> None:
    """Resize the file system so that so many pages are free."""
    facts = os.statvfs(folder)
    size = max(1, facts.f_blocks - facts.f_bfree + pages) * facts.f_frsize  # 0 is no limit
    _call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", REMOUNT, f"size={size}".encode())


def used_pages(folder: Path) -> int:
    facts = os.statvfs(folder)
    return facts.f_blocks - facts.f_bfree


def _call(name: str, *arguments) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
