"""Properties and splitting of lines of text."""

from __future__ import annotations

import re
import unicodedata


def is_blank(line: str) -> bool:
    """Whether a line has nothing to translate: white space, control and format characters only."""
    return all(unicodedata.category(c) in ("Zs", "Zl", "Zp", "Cc", "Cf") for c in line)


# Fixed-width look-behinds, so that no line, however odd, takes more than linear time.
_SENTENCE_END = re.compile(
    r"(?:(?<=[.!?;…])|(?<=[.!?;…][\"'”’»)\]]))(?=\s)"
    r"|(?<=[。！？；])(?![。！？；”’」』）])|(?<=[。！？；][”’」』）])"
)


def split_sentences(line: str) -> list[str]:
    """A line cut after its sentences; nothing is lost."""
    return [part for part in _SENTENCE_END.split(line) if part]


def one_line(text: str) -> str:
    """A text without anything that would end a line."""
    return text.replace("\n", " ").replace("\r", " ")
