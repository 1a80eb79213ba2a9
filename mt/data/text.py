"""Properties of lines of text."""

from __future__ import annotations

import re
import unicodedata

_INVISIBLE = ("Zs", "Zl", "Zp", "Cc", "Cf")
_REPEATED = re.compile(r"(\S(?:.{0,18}\S)?)(?:\s*\1){4,}")
"""Two to twenty characters, or one, five times in a row."""
_SEARCHED = 2_000
"""Characters of a text that are looked at."""


def is_blank(line: str) -> bool:
    """Whether a line has only white space, control and format characters (U+200B, U+FEFF)."""
    if "!" <= line[:1] <= "~":  # decides nearly all lines at once
        return False
    return all(unicodedata.category(c) in _INVISIBLE for c in line)


def join_lines(text: str) -> str:
    """Replace line ends within a text by spaces; drop those around it."""
    return text if "\n" not in text else text.strip("\r\n").replace("\r\n", " ").replace("\n", " ")


def one_line(text: str) -> str:
    """Replace line ends by spaces."""
    return text.replace("\n", " ").replace("\r", " ")


def repeats(text: str) -> bool:
    """Whether a text has something five times in a row."""
    return _REPEATED.search(text[:_SEARCHED]) is not None
