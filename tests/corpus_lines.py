"""Lines of a corpus to translate."""

from __future__ import annotations

import tiny_run

LINES = [*tiny_run.SOURCES * 2, "", "  ", *tiny_run.SOURCES[::-1]]
