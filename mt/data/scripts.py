"""Scripts of languages (ISO 15924) and of characters."""

from __future__ import annotations

import functools
from collections.abc import Callable

import langcodes
import regex
from langcodes.data_dicts import LIKELY_SUBTAGS

from mt.data.languages import SPACELESS, SPACELESS_SCRIPTS, SPACELESS_WORDS, base_code

_PARTS = {
    "Jpan": ("Hira", "Kana", "Hani"),
    "Kore": ("Hang", "Hani"),
    "Hans": ("Hani", "Bopo"),
    "Hant": ("Hani", "Bopo"),
    "Hrkt": ("Hira", "Kana"),
}
"""Codes of several scripts, or of a variant of one, by the scripts of Unicode's characters."""

_OTHER = regex.compile(r"[\p{P}\p{S}\p{Z}\p{C}\p{N}]+")
"""What is neither a letter nor a mark on one."""
_ASCII_OTHER = bytes(code for code in range(128) if not chr(code).isalpha())


def plain_language(code: str) -> str | None:
    """Return the shortest code of a language without its script or region; None: no language."""
    try:
        language = langcodes.Language.get(code).language
    except ValueError:  # it is no tag
        return None
    return language if language in LIKELY_SUBTAGS else None


def script_of(code: str) -> str | None:
    """Return the script that a language is most likely written in; None: unknown.

    It is that of the code (`sr-Latn`) or the likely one of Unicode's CLDR.
    """
    if plain_language(code) is None:
        return None
    return langcodes.Language.get(code).maximize().script


@functools.cache
def letters_of(script: str) -> regex.Pattern[str] | None:
    """Return a pattern of the letters and marks of a script; None: it is unknown."""
    names = _PARTS.get(script, (script,))
    try:
        # Marks, digits and signs that scripts share are `Inherited` and `Common`.
        return regex.compile("[" + "".join(rf"\p{{Script={name}}}" for name in names) + "]+")
    except regex.error:
        return None


def count_letters(text: str) -> int:
    """Count the letters of a text, of any script, and the marks on them."""
    if text.isascii():
        return len(text.encode().translate(None, _ASCII_OTHER))
    return len(_OTHER.sub("", text))


def script_share(text: str, letters: regex.Pattern[str]) -> float:
    """Return which share of the letters of a text matches `letters`; 1 without any letter."""
    rest = letters.sub("", text)
    own, other = len(text) - len(rest), count_letters(rest)
    return own / (own + other) if other else 1.0


def writes_spaces(code: str) -> bool:
    """Whether a language puts spaces between its words."""
    script = (script_of(code) or "").lower()
    base = base_code(code)
    return base not in SPACELESS | SPACELESS_WORDS and script not in SPACELESS_SCRIPTS


def word_counter(code: str) -> Callable[[str], int]:
    """Return a function that counts the words of a text in a language.

    Without spaces between words two characters are one; the mean length of a word is between 1.5
    (Chinese) and 4 (Thai).
    """
    return _count_words if writes_spaces(code) else _count_character_pairs


def _count_words(text: str) -> int:
    return len(text.split())


def _count_character_pairs(text: str) -> int:
    return -(-len("".join(text.split())) // 2)
