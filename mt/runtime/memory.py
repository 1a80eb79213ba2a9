"""Memory: free bytes, out-of-memory errors, the largest size that fits, malloc options."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

_MESSAGES = (
    "CUDA error: out of memory",
    "CUDA out of memory",
    "can't allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, a device's or the machine's, did not suffice."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).splitlines() or ["no details"])[0]


def available_bytes() -> int | None:
    """Bytes of main memory that this process may still take; None where Linux does not report it.

    The least of what the machine has and of what the control groups leave (versions 1 and 2).
    """
    left = list(_control_groups())
    for line in _read_lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            left.append(int(line.split()[1]) * 1024)
    return max(0, min(left)) if left else None


def _control_groups() -> Iterator[int]:
    """Bytes that each control group above this process leaves."""
    for line in _read_lines(Path("/proc/self/cgroup")):
        _, controllers, place = line.split(":", 2)
        names = ("memory.max", "memory.current")
        top = Path("/sys/fs/cgroup")
        if "memory" in controllers.split(","):
            names, top = ("memory.limit_in_bytes", "memory.usage_in_bytes"), top / "memory"
        elif controllers:
            continue
        inside = top / place.strip("/")
        for folder in {inside, *inside.parents}:
            if not folder.is_relative_to(top):
                continue
            limit, used = (next(_read_lines(folder / name), "") for name in names)
            if limit.isdigit() and used.isdigit():
                yield int(limit) - int(used) + _reclaimable(folder)


def _reclaimable(folder: Path) -> int:
    """Bytes of a control group that are only cached file pages, given back when needed."""
    names = ("inactive_file ", "total_inactive_file ")
    found = [int(s.split()[1]) for s in _read_lines(folder / "memory.stat") if s.startswith(names)]
    return max(found, default=0)


def _read_lines(path: Path) -> Iterator[str]:
    """Lines of a small file of the system; none when there is no such file."""
    try:
        yield from path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return


def bisect_max(fits: Callable[[int], bool], first: int, limit: int, grain: int) -> int | None:
    """The largest size, to within `grain`, that fits: doubled from `first`, then bisected.

    Args:
        fits: tries a size; when one fits, so do smaller ones.
        first: the smallest size of interest.
        limit: the largest.
        grain: how near is near enough.

    Returns:
        A size from `first` to `limit`, or None when not even `first` fits.
    """
    good, size = None, min(first, limit)
    while fits(size):
        good = size
        if size == limit:
            return good
        size = min(2 * size, limit)
    if good is None:
        return None
    bad = size
    while bad - good > grain:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def keep_freed_memory() -> None:
    """Make the C library keep freed memory, where it has such an option.

    Each batch frees what the next one needs. To give it back to the kernel and get it again,
    cleared, costs more than a dropout does; and what is held then swings with each batch.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc; the numbers are of its malloc.h
        trim_threshold, mmap_threshold = -1, -3
        library.mallopt(mmap_threshold, 1 << 30)
        library.mallopt(trim_threshold, (1 << 31) - 1)
