"""Memory: free bytes, out-of-memory errors, the largest size that fits, malloc options."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

_MESSAGES = (
    "CUDA error: out of memory", "CUDA out of memory", "can't allocate memory",
    "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED", "failed to map segment",
    "can't start new thread", "Cannot allocate memory", "std::bad_alloc",
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is that of exhausted memory, of a device or of the machine."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    known = isinstance(error, (RuntimeError, ImportError, OSError))
    return known and any(message in str(error) for message in _MESSAGES)


def first_line(error: BaseException) -> str:
    """Return the first line of the message of an error."""
    return (str(error).splitlines() or ["no details"])[0]


def available_bytes() -> int | None:
    """Return the free main memory by the machine and by control groups; None if unknown."""
    free = list(_control_groups())
    meminfo = _read_lines(Path("/proc/meminfo"))
    free += [int(line.split()[1]) * 1024 for line in meminfo if line.startswith("MemAvailable:")]
    return max(0, min(free)) if free else None


def peak_bytes() -> int:
    """Return the most main memory that this process has had; 0 where that is unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _control_groups() -> Iterator[int]:
    """Yield the free bytes of each control group (version 1 or 2) above this process."""
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
    """Return the bytes of a control group that are cached file pages, freed when needed."""
    names = ("inactive_file ", "total_inactive_file ")
    lines = [line for line in _read_lines(folder / "memory.stat") if line.startswith(names)]
    return max((int(line.split()[1]) for line in lines), default=0)


def _read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a small system file; none when there is no such file."""
    try:
        yield from path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return


def bisect_max(fits: Callable[[int], bool], first: int, limit: int, grain: int) -> int | None:
    """Find the largest size from `first` to `limit` that fits, to within `grain`, by bisection.

    When a size fits, smaller ones must fit, too. Returns None when not even `first` fits.
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

    Each batch frees what the next one needs. To get it from the kernel again, cleared, costs more
    than a dropout.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc; the numbers are of its malloc.h
        trim_threshold, mmap_threshold = -1, -3
        library.mallopt(mmap_threshold, 1 << 30)
        library.mallopt(trim_threshold, (1 << 31) - 1)
