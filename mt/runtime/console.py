"""Lines for the user, on standard error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

from mt.errors import printable

_seen_lines: ContextVar[set[str] | None] = ContextVar("seen_lines", default=None)


def print_line(line: str) -> None:
    """Print one line to standard error."""
    seen = _seen_lines.get()
    if seen is not None:
        if line in seen:
            return
        seen.add(line)
    sys.stderr.write(printable(line, limit=2000) + "\n")
    sys.stderr.flush()


@contextlib.contextmanager
def print_lines_once() -> Iterator[None]:
    """Print each line only once, where the same work is repeated."""
    token = _seen_lines.set(set())
    try:
        yield
    finally:
        _seen_lines.reset(token)


def align_columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Format the rows of a table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([f"{first:{widths[0]}}", *cells]).rstrip()
