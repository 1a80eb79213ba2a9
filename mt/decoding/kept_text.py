"""What a translation must keep, taken out of a source and put back into its translation.

An address, a placeholder, a tag, a long number or a word that the vocabulary cannot spell is no
text to translate, and a model that has seen few of them loses them. Where it does, the rest of the
sentence is translated alone, and each of them is put back where the attention says that the words
before it end and those after it begin.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from mt.data.sentences import SPACELESS_LETTER
from mt.data.untranslatable import Unit
from mt.decoding.types import Translation
from mt.decoding.word_alignment import WORD_START, to_words
from mt.vocabulary.vocabulary import BYTE, Vocabulary

_LETTER = re.compile(r"[^\W_]")
"""A letter or a digit."""
_WORDS = r"[\p{L}\p{N}_][\w\p{M}\p{Cf}]*|\p{S}[\p{S}\p{M}\p{Cf}]*"
"""Words, and runs of symbols such as emoji; no punctuation."""
_CAPITALS = re.compile("[A-ZÀ-ÖØ-ÞΑ-ΩА-Я]{3}")
_TAG = re.compile(r"<(/?)(\w+)[^<>]*>")
_OPENING = frozenset("([{„“«‚‘¿¡")
"""Marks that no space follows."""
_PAIRS = frozenset(
    ("()", "[]", "{}", "<>", '""', "''", "“”", "‘’", "«»", "»«", "„“", "（）", "「」", "『』")
)
_MARK_COST = 0.5
"""Attention that a mark at the edge of a range must have inside it."""
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What ends a line or commands a terminal."""


class Kept(NamedTuple):
    """A part that was taken out."""

    text: str
    place: int
    """The characters of the rest before it."""
    joins_left: bool
    joins_right: bool
    """Whether it touches a word on this side, parts between them left out."""
    follows: bool = False
    """Whether it touches the part before it."""


@dataclass(frozen=True)
class Rest:
    """A source without some parts that its translation keeps."""

    text: str
    kept: tuple[Kept, ...]


def unknown_words(text: str, vocabulary: Vocabulary) -> list[Unit]:
    """Return the words and symbols that the vocabulary spells in bytes, or not at all.

    And abbreviations in capitals that it spells letter by letter.
    """
    import regex  # few texts get here

    found = list(regex.finditer(_WORDS, text))
    ids = vocabulary.encode_source([word[0] for word in found])
    units = []
    for word, own in zip(found, ids, strict=True):
        pieces = vocabulary.pieces_source(own)
        rest = [piece.lstrip(WORD_START) for piece in pieces if not is_unknown(piece)]
        if not rest or (max(map(len, rest)) == 1 and has_abbreviation(word[0])):
            units.append(Unit(*word.span()))
    return units


def has_abbreviation(text: str) -> bool:
    """Whether a text has three capitals in a row, as in `NATO`."""
    return _CAPITALS.search(text) is not None


def is_unknown(piece: str) -> bool:
    """Whether a piece stands for no text that the model has learned; the space before it does."""
    return piece in ("<unk>", WORD_START) or BYTE.fullmatch(piece) is not None


def take_out(text: str, units: Sequence[Unit]) -> Rest:
    """Take parts out of a text, each with the brackets or quotes around it alone.

    Where no letter is left, all of the text is one part.
    """
    text = _CONTROL.sub(" ", text)
    spans = [_with_brackets(text, unit) for unit in units]
    stops = dict(spans)
    starts = {stop: start for start, stop in spans}
    rest, kept, end = "", list[Kept](), 0
    for start, stop in spans:
        rest = (rest + text[end:start]) if rest else text[end:start].lstrip()
        if not _LETTER.match(text[stop : stop + 1]):
            rest = rest.rstrip()  # of two spaces one stays, and none before a mark
        first, last = _beyond(start, starts), _beyond(stop, stops)
        own, before, after = (
            text[start:stop],
            text[max(0, first - 1) : first],
            text[last : last + 1],
        )
        joins = _joins(own, before), _joins(own, after)
        kept.append(Kept(own, len(rest), *joins, follows=start in starts))
        end = stop
    rest = (rest + text[end:] if rest else text[end:].lstrip()).rstrip()
    if _LETTER.search(rest):
        return Rest(rest, tuple(kept))
    return Rest("", (Kept(text.strip(), 0, False, False),))


def _beyond(place: int, others: dict[int, int]) -> int:
    """The place at the other end of the parts that touch one another from `place` on."""
    while place in others:
        place = others[place]
    return place


def _with_brackets(text: str, unit: Unit) -> tuple[int, int]:
    start, stop = unit.start, unit.stop
    while start and text[start - 1] + text[stop : stop + 1] in _PAIRS:
        start, stop = start - 1, stop + 1
    return start, stop


def _joins(part: str, neighbour: str) -> bool:
    """Whether no space may come between a part and the character that it touches in the source.

    That is a letter of a script with spaces; of a tag, any such character.
    """
    is_text = _TAG.fullmatch(part) or _LETTER.match(neighbour)
    is_apart = not neighbour or neighbour.isspace() or SPACELESS_LETTER.match(neighbour)
    return is_text is not None and not is_apart


def put_back(
    translation: Translation, rest: Rest, columns: Sequence[int], decode: Callable[[int], str],
    *, has_spaces: bool,
) -> Translation:  # fmt: skip
    """Put the parts into the translation of the rest.

    Args:
        columns: for each part the number of source pieces before it.
        decode: the text of so many first tokens of the translation.
        has_spaces: whether the target language separates words by spaces.
    """
    places = _target_places(translation, rest, columns)
    order = sorted(range(len(places)), key=lambda number: (places[number], number))
    text = _put_text(
        translation.text, [rest.kept[number] for number in order],
        [decode(places[number]) for number in order], has_spaces,
    )  # fmt: skip
    translation = _widen(replace(translation, text=text), rest.kept, columns)
    for number in reversed(order):  # from right to left, so that no place moves
        place, rows = places[number], translation.alignment
        column = columns[number] + number  # those before it have got theirs
        one_hot = tuple(float(i == column) for i in range(len(translation.source_tokens)))
        translation = replace(
            translation,
            tokens=_insert(translation.tokens, place, WORD_START + rest.kept[number].text),
            log_probabilities=_insert(translation.log_probabilities, place, 0.0),
            alignment=None if rows is None else _insert(rows, place, one_hot),
        )
    return translation


def _put_text(text: str, parts: Sequence[Kept], before: Sequence[str], has_spaces: bool) -> str:
    """Put parts into a text, in their order; `before` is what stands before each."""
    # Tokens that are bytes of one character have no text of their own.
    lengths = [len(_shared_beginning(text, each).rstrip()) for each in before]
    starts = list(accumulate(lengths, max))
    put, last = text[: starts[0]], -1
    for kept, start, end in zip(parts, starts, [*starts[1:], len(text)], strict=True):
        left, right = put, text[start:end]
        if has_spaces:
            left += _space_between(left, kept, touches=kept.follows and start == last)
            right = _space_after(kept, right) + right.lstrip()
        put, last = left + kept.text + right, start
    return put


def _space_between(left: str, kept: Kept, *, touches: bool) -> str:
    joins = touches or kept.joins_left or not left or left[-1] in _OPENING
    return "" if joins else " "


def _space_after(kept: Kept, right: str) -> str:
    is_apart = right[:1].isspace() or _LETTER.match(right) is not None
    return " " if is_apart and right.strip() and not kept.joins_right else ""


def _shared_beginning(text: str, other: str) -> str:
    lengths = range(min(len(text), len(other)), -1, -1)
    return text[: next(n for n in lengths if text.startswith(other[:n]))]


def _widen(translation: Translation, parts: Sequence[Kept], columns: Sequence[int]) -> Translation:
    """Give the parts their places among the pieces of the source."""
    sources, rows = translation.source_tokens, translation.alignment
    for kept, column in reversed(list(zip(parts, columns, strict=True))):
        sources = _insert(sources, column, WORD_START + kept.text)
        rows = None if rows is None else tuple(_insert(row, column, 0.0) for row in rows)
    return replace(translation, source_tokens=sources, alignment=rows)


def _insert(values: tuple[Any, ...], place: int, value: Any) -> tuple[Any, ...]:
    return (*values[:place], value, *values[place:])


def _target_places(translation: Translation, rest: Rest, columns: Sequence[int]) -> list[int]:
    """The number of target tokens before each part."""
    places = [
        _target_place(translation, rest, kept, column)
        for kept, column in zip(rest.kept, columns, strict=True)
    ]
    for first, last in _tag_pairs(rest.kept):
        inside = rest.text[rest.kept[first].place : rest.kept[last].place]
        outside = rest.text[: rest.kept[first].place] + rest.text[rest.kept[last].place :]
        if translation.alignment and _LETTER.search(inside) and _LETTER.search(outside):
            pair = _target_range(translation, columns[first], columns[last])
            places[first], places[last] = pair
        places[last] = max(places[first], places[last])
    return places


def _tag_pairs(parts: Sequence[Kept]) -> list[tuple[int, int]]:
    """The tags that begin and end an element, inner elements first."""
    pairs, open_tags = [], list[tuple[str, int]]()
    for number, kept in enumerate(parts):
        tag = _TAG.fullmatch(kept.text)
        if tag is None or kept.text.endswith("/>"):
            continue
        if not tag[1]:
            open_tags.append((tag[2], number))
        elif open_tags and open_tags[-1][0] == tag[2]:
            pairs.append((open_tags.pop()[1], number))
    return pairs


def _target_range(translation: Translation, first: int, last: int) -> tuple[int, int]:
    """The range of target tokens that look at source pieces from `first` to `last`, not at others.

    It has the largest sum of attention inside less attention outside; marks count little.
    """
    tokens, rows = translation.tokens, translation.alignment or ()
    best, begin, total, found = 0.0, 0, 0.0, (0, 0)
    for pieces in _words(tokens):
        inside = sum(sum(rows[place][first:last]) for place in pieces)
        every = sum(sum(rows[place]) for place in pieces)
        if not _LETTER.search("".join(tokens[place] for place in pieces)):
            every += _MARK_COST
        if total <= 0:
            begin, total = pieces.start, 0.0
        total += 2 * inside - every
        if total > best:
            best, found = total, (begin, pieces.stop)
    return found


def _words(tokens: Sequence[str]) -> list[range]:
    """The places of the tokens of each word, marks by themselves."""
    marks = [place for place, token in enumerate(tokens) if not _LETTER.search(token)]
    starts = {pieces.start for _, pieces in to_words(tokens)}.union(marks, [m + 1 for m in marks])
    edges = sorted({0, len(tokens), *starts})
    return [range(start, end) for start, end in pairwise(edges)]


def _target_place(translation: Translation, rest: Rest, kept: Kept, column: int) -> int:
    """The number of target tokens before a part: where the fewest links cross its place.

    A part at the beginning or the end of the source, but for marks, is there in the translation.
    """
    tokens, rows = translation.tokens, translation.alignment
    has_text = [place for place, token in enumerate(tokens) if _LETTER.search(token)]
    before, after = rest.text[: kept.place], rest.text[kept.place :]
    if not has_text or not after:
        return len(tokens)
    if not _LETTER.search(after):
        return has_text[-1] + 1
    if not _LETTER.search(before):
        return has_text[0] if before else 0
    places = [pieces.start for pieces in _words(tokens)] + [len(tokens)]
    if rows is None:
        wanted = len(tokens) * column / max(1, len(translation.source_tokens))
        return min(places, key=lambda place: abs(place - wanted))
    early, late = [sum(row[:column]) for row in rows], [sum(row[column:]) for row in rows]
    return min(places, key=lambda place: sum(late[:place]) + sum(early[place:]))
