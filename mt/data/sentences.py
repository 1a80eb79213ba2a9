"""Split lines into sentences, and these into halves; which lines are usual in a corpus."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable

# Fixed-width look-behinds, so that no line takes more than linear time.
_SENTENCE_END = re.compile(
    r"(?:(?<=[.!?;…])|(?<=[.!?;…][\"'”’»)\]]))(?=\s)"
    r"|(?<=[。！？；])(?![。！？；”’」』）])|(?<=[。！？；][”’」』）])"
)
_CLAUSE_END = re.compile(r"(?<=[,;:،؛–—])(?=\s)|(?<=[，、：])")
_WORD_END = re.compile(r"(?<=\S)(?=\s)")
_FIRST_SPACELESS = "\u0e00"
"""From Thai on: scripts without spaces, and some with spaces."""
_TITLES = frozenset((
    *("Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Gen", "Col", "Capt", "Lt", "Sgt", "Sen", "Rep"),
    *("Gov", "Rev", "Hon", "Hr", "Fr", "Nr", "Mme", "Mlle", "Sr", "Sra"),
    *("bzw", "ca", "cf", "vgl", "vs"),
))  # fmt: skip
"""Abbreviations that stand before a name or a number, not at the end of a sentence."""
_LONGEST_ORDINAL = 2
"""Digits of the number before a full stop that may be an ordinal, as in `3. Oktober`."""
_UNUSUAL = 0.01
"""Share of the lines of a corpus from which on a kind of line is usual in it."""


def split_sentences(line: str) -> list[str]:
    """Split a line after its sentences and keep every character."""
    parts = [part for part in _SENTENCE_END.split(line) if part]
    sentences = parts[:1]
    for part in parts[1:]:
        if part.lstrip()[:1].islower() or _ends_in_abbreviation(sentences[-1]):
            sentences[-1] += part
        else:
            sentences.append(part)
    return sentences


def _ends_in_abbreviation(text: str) -> bool:
    """Whether a text ends in a title, an initial, letters with full stops, or an ordinal."""
    if not text.endswith("."):
        return False
    word = text[:-1][-20:].rpartition(" ")[2].lstrip("(\"'“‘«[")
    if word.isdigit():
        return len(word) <= _LONGEST_ORDINAL
    is_initial = len(word) == 1 and word.isalpha() and word != "I"
    return word in _TITLES or is_initial or "." in word.strip(".")


def usual_length(lines: Iterable[tuple[str, int]]) -> int:
    """Return up to which length a line of several sentences is usual in a corpus.

    One line in a hundred has several sentences and at least that length.

    Args:
        lines: a sample of the corpus, with the number of pieces of each.

    Returns:
        A number of pieces; 0 where fewer lines have several sentences.
    """
    count, several = 0, list[int]()
    for text, length in lines:
        count += 1
        if len(split_sentences(text)) > 1:
            several.append(length)
    rank = max(1, math.ceil(_UNUSUAL * count))
    return sorted(several, reverse=True)[rank - 1] if len(several) >= rank else 0


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
