"""Lines in capitals, in title case or in small letters: the usual spelling of a source.

A model that has seen few capitals spells them letter by letter, and repeats a syllable or invents
something. The vocabulary knows which spelling of a word is usual in its training text: the one
that needs the fewest pieces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from mt.data.languages import base_code
from mt.data.sentences import split_sentences
from mt.data.untranslatable import find_units
from mt.special_tokens import UNK

MOST_PIECES = 0.9
"""Of those of a line as it is, in the usual spelling: else this one is usual, too."""
FEWEST_WORDS = 4
"""Of a line in title case."""
_SHORT_WORD = 3
"""Letters of a word that title case may leave as it is."""
_MOST_SMALL = 0.1
"""Small letters for each large one, as in `STRAßE` or `iPHONE`, of a line in capitals."""
UNKNOWN_COST = 4
"""Pieces that an unknown one counts for."""
_DOTLESS_I = {"tr", "az", "crh", "tt"}
"""Languages whose small `I` is `ı`."""
_UNICAMERAL = {"ka"}
"""Languages whose capitals are an ornament that most fonts lack."""
_WORD = re.compile(r"\S+")
_FIRST = re.compile(r"[^\W_]")
_ENGLISH_I = re.compile(r"(?<![\w.-])i(?=$|[\s,;:!?'’])")

Encode = Callable[[Sequence[str]], list[list[int]]]
"""Source text to ids."""


def restore_case(lines: Sequence[str], encode: Encode, language: str) -> list[str]:
    """Return lines, those in capitals, title case or small letters in a spelling of fewer pieces.

    A line stays the same object where there is none.
    """
    odd = {
        row: line for row, line in enumerate(lines)
        if line.islower() or is_capitals(line) or is_title(line)
    }  # fmt: skip
    if not odd:
        return list(lines)
    spellings = _usual_spellings(odd.values(), encode, language)
    usual = [_respell(line, spellings, language) for line in odd.values()]
    restored = list(lines)
    each = ([_text_alone(line) for line in lines] for lines in (odd.values(), usual))
    costs = zip(*(_costs(encode, texts) for texts in each), strict=True)
    for row, line, (before, after) in zip(odd, usual, costs, strict=True):
        if after <= MOST_PIECES * before:
            restored[row] = line
    return restored


def is_capitals(line: str) -> bool:
    """Whether nearly all letters of a line that have two cases are in upper case.

    Those of addresses, placeholders and tags do not count.
    """
    text = _text_alone(line)
    large, small = sum(map(str.isupper, text)), sum(map(str.islower, text))
    return large > 0 and small <= _MOST_SMALL * large


def is_title(line: str) -> bool:
    """Whether a line has some words, each with a capital, but perhaps for short ones."""
    words = 0
    for word in line.split():
        first = _FIRST.search(word)
        if first is not None and first[0].isupper():
            words += 1
        elif first is not None and first[0].islower() and len(word) > _SHORT_WORD:
            return False
    return words >= FEWEST_WORDS


def capitalise(text: str, language: str) -> str:
    """Return a text in capitals, but for addresses, placeholders and tags."""
    return "".join(part if is_kept else _upper(part, language) for part, is_kept in _parts(text))


def _text_alone(line: str) -> str:
    return "".join(text for text, is_kept in _parts(line) if not is_kept)


def _parts(line: str) -> list[tuple[str, bool]]:
    """Split a line into text and, in turn, what a translation keeps as it is; numbers are text."""
    parts, end = list[tuple[str, bool]](), 0
    for unit in find_units(line):
        if not unit.digits:
            parts += [(line[end : unit.start], False), (line[unit.start : unit.stop], True)]
            end = unit.stop
    return [*parts, (line[end:], False)]


def _usual_spellings(lines: Iterable[str], encode: Encode, language: str) -> dict[str, str]:
    """Return the spelling with the fewest pieces of each word, small letters first."""
    texts = [text for line in lines for text, is_kept in _parts(line) if not is_kept]
    words = sorted({word for text in texts for word in text.split()})
    forms = [(small := _lower(word, language), _begin(small, language), word) for word in words]
    costs = iter(_costs(encode, [form for each in forms for form in each]))
    spellings = {}
    for word, each in zip(words, forms, strict=True):
        own = [next(costs) for _ in each]
        spellings[word] = each[own.index(min(own))]
    return spellings


def _costs(encode: Encode, lines: Sequence[str]) -> list[int]:
    return [len(ids) + UNKNOWN_COST * ids.count(UNK) for ids in encode(lines)]


def _respell(line: str, spellings: dict[str, str], language: str) -> str:
    """Return a line with other spellings of its words, each sentence with a capital."""
    respelled, before = list[str](), ""
    for sentence in split_sentences(line):
        parts = [
            text if is_kept else _WORD.sub(lambda word: spellings.get(word[0], word[0]), text)
            for text, is_kept in _parts(sentence)
        ]
        if base_code(language) == "en":
            parts = [_ENGLISH_I.sub("I", part) for part in parts]
        if not before.endswith(";"):
            parts[0] = _begin(parts[0], language)
        respelled += parts
        before = sentence
    return "".join(respelled)


def _begin(text: str, language: str) -> str:
    """Return a text whose first letter is a capital, unless a number comes first."""
    first = _FIRST.search(text)
    if first is None:
        return text
    at = first.start()
    return text[:at] + _upper(text[at], language) + text[at + 1 :]


def _upper(text: str, language: str) -> str:
    base = base_code(language)
    if base in _UNICAMERAL:
        return text
    return (text.replace("i", "İ") if base in _DOTLESS_I else text).upper()


def _lower(text: str, language: str) -> str:
    if base_code(language) in _DOTLESS_I:
        text = text.replace("I", "ı").replace("İ", "i")
    return text.lower()
