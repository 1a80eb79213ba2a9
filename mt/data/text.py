"""Properties and splitting of lines of text."""

from __future__ import annotations

import re
import unicodedata

_INVISIBLE = ("Zs", "Zl", "Zp", "Cc", "Cf")
# Fixed-width look-behinds, so that no line takes more than linear time.
_SENTENCE_END = re.compile(
    r"(?:(?<=[.!?;…])|(?<=[.!?;…][\"'”’»)\]]))(?=\s)"
    r"|(?<=[。！？；])(?![。！？；”’」』）])|(?<=[。！？；][”’」』）])"
)
_CLAUSE_END = re.compile(r"(?<=[,:،؛–—])(?=\s)|(?<=[，、：])")
_WORD_END = re.compile(r"(?<=\S)(?=\s)")
_FIRST_SPACELESS = "\u0e00"
"""From Thai on: scripts without spaces, and some with spaces."""
_REPEATED = re.compile(r"(\S(?:.{0,18}\S)?)(?:\s*\1){4,}")
"""Two to twenty characters, or one, five times in a row."""
_SEARCHED = 2_000
"""Characters of a text that are looked at."""


def is_blank(line: str) -> bool:
    """Whether a line has only white space, control and format characters (U+200B, U+FEFF)."""
    if "!" <= line[:1] <= "~":  # decides nearly all lines at once
        return False
    return all(unicodedata.category(c) in _INVISIBLE for c in line)


def split_sentences(line: str) -> list[str]:
    """Split a line after its sentences and keep every character."""
    return [part for part in _SENTENCE_END.split(line) if part]


def halve(text: str) -> list[str]:
    """Split a text near its middle and keep every character.

    At the end of a clause; else of the nearest word; else between letters of a script without
    spaces. A text without such a place is one part.
    """
    middle = len(text) / 2
    clauses = [place for place in _places(_CLAUSE_END, text) if abs(place - middle) < middle / 2]
    places = clauses or _places(_WORD_END, text) or _letters_of_spaceless_scripts(text)
    if not places:
        return [text]
    place = min(places, key=lambda place: abs(place - middle))
    return [text[:place], text[place:]]


def _places(pattern: re.Pattern[str], text: str) -> list[int]:
    """Where a pattern splits a text into two that are not empty."""
    return [found.start() for found in pattern.finditer(text) if 0 < found.start() < len(text)]


def _letters_of_spaceless_scripts(text: str) -> list[int]:
    return [
        place for place, letter in enumerate(text)
        if place and letter >= _FIRST_SPACELESS and unicodedata.category(letter) == "Lo"
    ]  # fmt: skip


def join_lines(text: str) -> str:
    """Replace line ends within a text by spaces; drop those around it."""
    return text if "\n" not in text else text.strip("\r\n").replace("\r\n", " ").replace("\n", " ")


def one_line(text: str) -> str:
    """Replace line ends by spaces."""
    return text.replace("\n", " ").replace("\r", " ")


def repeats(text: str) -> bool:
    """Whether a text has something five times in a row."""
    return _REPEATED.search(text[:_SEARCHED]) is not None
