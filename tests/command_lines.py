"""Lines for the commands that read standard input."""

from __future__ import annotations

import tiny_run

LINES = "".join(f"{line}\n" for line in tiny_run.SOURCES)
