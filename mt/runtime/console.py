"""Lines for the user, on standard error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextvars import ContextVar

from mt.errors import printable

_said: ContextVar[set[str] | None] = ContextVar("said", default=None)


def say(line: str) -> None:
    """One line to standard error."""
    said = _said.get()
    if said is not None:
        if line in said:
            return
        said.add(line)
    sys.stderr.write(printable(line, limit=2000) + "\n")
    sys.stderr.flush()


@contextlib.contextmanager
def each_line_once() -> Iterator[None]:
    """Where the same work is done again and again, what it has to say is said the first time."""
    token = _said.set(set())
    try:
        yield
    finally:
        _said.reset(token)
