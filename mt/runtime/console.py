"""Lines for the user, on standard error, which can never fail the work.

A terminal goes away, a pipe is closed, a disk is full: what cannot be written then is dropped.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from mt.errors import printable, redact

_warned: set[str] = set()
_seen_lines: ContextVar[set[str] | None] = ContextVar("seen_lines", default=None)


def print_line(line: str) -> None:
    """Print one line to standard error."""
    seen = _seen_lines.get()
    if seen is not None:
        if line in seen:
            return
        seen.add(line)
    write_error(printable(line, limit=2000))


def write_error(text: str) -> None:
    """Write lines to standard error as they are; drop them where that is impossible."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # full, closed, None
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def warn_once(code: str, what: str) -> None:
    """Print a warning, the first time that there is one of this code."""
    if code not in _warned:
        _warned.add(code)
        print_line(f"mt: warning[{code}] {what}")


class _LosslessErrors(io.FileIO):
    """File descriptor 2, which accepts everything, also when nobody can read it any more.

    Libraries write there, too: a URL with a password, for one, that cannot be reached.
    """

    def write(self, data: Any, /) -> int:
        """Write bytes without secrets; return their number, written or not."""
        text = bytes(data).decode("utf-8", errors="surrogateescape")
        with contextlib.suppress(OSError):
            super().write(redact(text).encode("utf-8", errors="surrogateescape"))
        return memoryview(data).nbytes


def protect_standard_streams() -> None:
    """Make standard error accept all writes of mt and its libraries, and keep descriptors 0 to 2.

    A file opened while one of these descriptors is closed would get its number, and then the
    messages of libraries in C.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    raw = _LosslessErrors(2, "w", closefd=False)
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=True,
        write_through=True,
    )  # fmt: skip


def discard_output() -> None:
    """Send what Python still holds for standard output nowhere; it cannot be written."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def print_lines_once() -> Iterator[None]:
    """Print each line only once, where the same work is repeated."""
    token = _seen_lines.set(set())
    try:
        yield
    finally:
        _seen_lines.reset(token)


def align_columns(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> Iterator[str]:
    """Format the rows of a table; the columns in `left` are aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            f"{cell:{'<' if column in left else '>'}{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
