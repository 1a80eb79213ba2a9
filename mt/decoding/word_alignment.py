"""Word alignments from the attention of pieces, and pieces as readable words."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Iterator, Sequence
from typing import cast

from mt.decoding.types import Translation
from mt.vocabulary.vocabulary import BYTE

WORD_START = "\u2581"
"""SentencePiece's mark before a piece that begins a word, or after one that ends it."""
SPACELESS_SCRIPTS = (
    "CJK", "IDEOGRAPHIC", "FULLWIDTH", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR",
    "TIBETAN",
)  # fmt: skip
"""First words of the Unicode names of characters whose scripts put no spaces between words."""


def format_pharaoh(translation: Translation) -> str:
    """The links of a translation as `source-target` word numbers from 0, the Pharaoh format."""
    return " ".join(f"{source}-{target}" for source, target in word_links(translation))


def word_links(translation: Translation) -> list[tuple[int, int]]:
    """(source word, target word): for each target word the source word it attended to most.

    The largest attention between pieces of the two words counts. A word that attended to no word
    (to the end of the source alone) has no link.
    """
    sources = [pieces for _, pieces in to_words(translation.source_tokens)]
    links = []
    for number, (_, pieces) in enumerate(to_words(translation.tokens)):
        rows = [(translation.alignment or ())[piece] for piece in pieces]
        shares = [max(row[piece] for row in rows for piece in source) for source in sources]
        if max(shares, default=0.0) > 0:
            links.append((shares.index(max(shares)), number))
    return links


def to_words(pieces: Sequence[str]) -> list[tuple[str, range]]:
    """The words that pieces form, each with the places of its pieces; bytes are text again.

    Each piece is a word where a script puts no spaces between words, or no piece has a mark.
    """
    starts = list(_word_starts(pieces))
    ends = [*starts[1:], len(pieces)][: len(starts)]
    texts = _spell_characters(pieces)
    return [
        ("".join(texts[start:end]).replace(WORD_START, ""), range(start, end))
        for start, end in zip(starts, ends, strict=True)
    ]


def display_pieces(pieces: Sequence[str]) -> list[str]:
    """Readable pieces: no mark at a word's start, a dot before a piece that continues a word.

    Punctuation needs no dot; a piece that is the mark alone is shown as a space. A character that
    is spelled in bytes is at the first of them, and a dot at the others.
    """
    marked = any(WORD_START in piece for piece in pieces)
    shown, before = [], ""
    for piece in _spell_characters(pieces):
        within = marked and _is_letter(before[-1:]) and _is_letter(piece[:1])
        dot = "\u00b7" if within and not _is_spaceless(before, piece) else ""
        shown.append(dot + piece.replace(WORD_START, "") or ("\u2423" if piece else "\u00b7"))
        before = piece
    return shown


def _spell_characters(pieces: Sequence[str]) -> list[str]:
    """The pieces, each character that bytes spell at its first byte, and nothing at the others.

    Bytes that are no whole character, or an invisible one, stay as they are.
    """
    spelled, place = list(pieces), 0
    values = [int(piece[3:5], 16) if BYTE.fullmatch(piece) else None for piece in pieces]
    while place < len(values):
        length = 1
        for end in range(place + 1, place + 5):
            if None in values[place:end]:
                break
            with contextlib.suppress(UnicodeDecodeError):
                text = bytes(cast(list[int], values[place:end])).decode()
                if text.isprintable():
                    length = end - place
                    spelled[place:end] = [text, *[""] * (length - 1)]
                break
        place += length
    return spelled


def _is_letter(character: str) -> bool:
    """Whether it is a letter, a combining mark, or a digit."""
    return unicodedata.category(character or " ")[0] in "LMN"


def _word_starts(pieces: Sequence[str]) -> Iterator[int]:
    """The places where words begin; a mark alone begins no word that nothing follows."""
    if _marks_ends(pieces):
        yield from _starts_after_ends(pieces)
        return
    marked = any(piece.startswith(WORD_START) for piece in pieces)
    last = max((i for i, piece in enumerate(pieces) if piece != WORD_START), default=-1)
    visible, before = True, ""  # whether the word so far is more than its mark; the piece before
    for number, piece in enumerate(pieces):
        begins = piece.startswith(WORD_START) or not marked or _is_spaceless(before, piece)
        if number == 0 or (begins and visible and number <= last):
            yield number
            visible = False
        visible = visible or piece != WORD_START
        before = piece


def _marks_ends(pieces: Sequence[str]) -> bool:
    """Whether words have the mark at their end, by SentencePiece's treat_whitespace_as_suffix."""
    longer = [piece for piece in pieces if piece != WORD_START]
    if any(piece.startswith(WORD_START) for piece in longer):
        return False
    at_end = bool(longer) and pieces[0] != WORD_START and pieces[-1] == WORD_START
    return at_end or any(piece.endswith(WORD_START) for piece in longer)


def _starts_after_ends(pieces: Sequence[str]) -> Iterator[int]:
    """The places where words begin that have the mark at their end."""
    for number, piece in enumerate(pieces):
        before = pieces[number - 1] if number else WORD_START
        if number == 0 or (
            piece != WORD_START
            and (before.endswith(WORD_START) or _is_spaceless(before, piece))
        ):  # fmt: skip
            yield number


def _is_spaceless(before: str, piece: str) -> bool:
    return any(
        unicodedata.name(c, "").startswith(SPACELESS_SCRIPTS) for c in (before[-1:], piece[:1]) if c
    )
