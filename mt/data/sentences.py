"""Split lines into sentences, and these into halves; which lengths are usual in a corpus."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from mt.runtime.model_files import JsonObject

_MARKS = ".!?;…؟۔।॥։።။។"
"""End a sentence before white space; those of Chinese and Japanese need none."""
# Fixed-width look-behinds, so that no line takes more than linear time.
_SENTENCE_END = re.compile(
    rf"(?:(?<=[{_MARKS}])|(?<=[{_MARKS}][\"'”’»)\]]))(?=\s)"
    r"|(?<=[。！？；])(?![。！？；”’」』）])|(?<=[。！？；][”’」』）])"
)
_CLAUSE_END = re.compile(r"(?<=[,;:،؛፣–—])(?=\s)|(?<=[，、：])")
_WORD_END = re.compile(r"(?<=\S)(?=\s)")
SPACELESS_LETTER = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""A character of a script without spaces: Thai to Burmese, Khmer, Japanese, Chinese."""
_TITLES = frozenset((
    *("Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Gen", "Col", "Capt", "Lt", "Sgt", "Sen", "Rep"),
    *("Gov", "Rev", "Hon", "Hr", "Fr", "Nr", "Mme", "Mlle", "Sr", "Sra"),
    *("bzw", "ca", "cf", "vgl", "vs"),
))  # fmt: skip
"""Abbreviations that stand before a name or a number, not at the end of a sentence."""
_LONGEST_ORDINAL = 2
"""Digits of the number before a full stop that may be an ordinal, as in `3. Oktober`."""
_LIST_NUMBER = re.compile(rf"\s*[0-9]{{1,{_LONGEST_ORDINAL}}}\.")
"""What begins an item of a list, as in `1. Open it. 2. Close it.`"""
_ANY = 1 << 30
"""More pieces than any line has."""


def split_sentences(line: str) -> list[str]:
    """Split a line after its sentences and keep every character.

    A single word, a number or an address is no sentence: it stays with the one before it, or at
    the beginning of a line with the one after it. The number of an item of a list begins one.
    """
    sentences: list[list[str]] = []
    parts = [part for part in _SENTENCE_END.split(line) if part]
    for number, part in enumerate(parts, start=1):
        is_item = _LIST_NUMBER.fullmatch(part) is not None and number < len(parts)
        goes_on = part.lstrip()[:1].islower() or (_is_word(part) and not is_item)
        if sentences and (goes_on or _needs_more(sentences[-1])):
            sentences[-1].append(part)
        else:
            sentences.append([part])
    return ["".join(parts) for parts in sentences]


def _is_word(text: str) -> bool:
    return len(text.split(maxsplit=1)) < 2 and SPACELESS_LETTER.search(text) is None


def _needs_more(parts: list[str]) -> bool:
    """Whether what follows belongs to the same sentence as `parts`."""
    return _ends_in_abbreviation(parts[-1]) or (len(parts) == 1 and _is_word(parts[0]))


def _ends_in_abbreviation(text: str) -> bool:
    """Whether a text ends in a title, an initial, letters with full stops, or an ordinal."""
    if not text.endswith("."):
        return False
    word = text[-21:-1].rpartition(" ")[2].lstrip("(\"'“‘«[")
    if word.isdigit():
        return len(word) <= _LONGEST_ORDINAL
    is_initial = len(word) == 1 and word.isalpha() and word != "I"
    return word in _TITLES or is_initial or "." in word.strip(".")


class UsualLengths(JsonObject):
    """Lengths of the source lines of a training text, in pieces."""

    sentence: Annotated[int, Field(ge=0)] = _ANY
    """All but one line in a thousand have at most so many."""
    several: Annotated[int, Field(ge=0)] = _ANY
    """One line in a hundred has several sentences and at least so many; 0: fewer lines have."""

    @property
    def shortest(self) -> int:
        """A line of at most so many is usual, whatever is in it."""
        return min(self.sentence, self.several)

    @classmethod
    def of(cls, facts: dict[str, Any]) -> UsualLengths:
        """Return those in a report, or in the facts of an export; earlier ones have none."""
        return cls.model_validate(facts.get("usual_lengths") or {})


ANY_LENGTHS = UsualLengths()
"""Nothing is too long to be usual."""


def usual_lengths(lines: Sequence[str], lengths: Sequence[int]) -> UsualLengths:
    """Return the usual lengths of lines, a sample of a training text, whose lengths are given."""
    both = zip(lines, lengths, strict=True)
    several = [length for text, length in both if len(split_sentences(text)) > 1]
    return UsualLengths(
        sentence=_exceeded(lengths, len(lines) / 1000),
        several=_exceeded(several, len(lines) / 100),
    )


def _exceeded(lengths: Sequence[int], count: float) -> int:
    """Return the length that so many of the lengths have or exceed; 0: there are fewer."""
    rank = max(1, math.ceil(count))
    return sorted(lengths, reverse=True)[rank - 1] if len(lengths) >= rank else 0


def halve(text: str, *, at_words: bool = True) -> list[str]:
    """Split a text near its middle and keep every character.

    At the end of a clause; with `at_words` else of the nearest word, else between letters of a
    script without spaces. A text without such a place is one part.
    """
    middle = len(text) / 2
    places = [place for place in _places(_CLAUSE_END, text) if abs(place - middle) < middle / 2]
    if at_words and not places:
        places = _places(_WORD_END, text) or _letters_of_spaceless_scripts(text)
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
        if place and SPACELESS_LETTER.match(letter) and unicodedata.category(letter) == "Lo"
    ]  # fmt: skip
