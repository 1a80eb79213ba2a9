"""Translations and scores as lines of text: plain, columns, Moses n-best lists, JSON, alignments.

A rendering gives the lines that stand for one line of input: one, but for n-best lists.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, get_args

from mt.errors import ConfigError
from mt.interfaces import Score, Translation

Kind = Literal["text", "moses", "json"]
Rendering = Callable[[int, str, Translation], str]
"""(line number from 0, source, translation) to one or several lines, without the last newline."""

WORD_START = "\u2581"
"""What SentencePiece puts before a piece that begins a word."""
UNSPACED = (
    "CJK", "IDEOGRAPHIC", "FULLWIDTH", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR",
    "TIBETAN",
)  # fmt: skip
"""How the names of characters begin whose scripts put no spaces between words."""


def rendering(
    kind: str | None, n_best: int = 1, scores: bool = False, alignments: bool = False
) -> Rendering:
    """How translations are written.

    Args:
        kind: `text`, `moses` or `json`; None: `moses` for n-best lists, else `text`.
        n_best: how many hypotheses a line were asked for.
        scores: with their scores, in `text`; the others always have them.
        alignments: with alignments.

    Raises:
        ConfigError: there is no such format, or it cannot hold what is asked for.
    """
    kind = kind or ("moses" if n_best > 1 else "text")
    if kind not in get_args(Kind):
        what = f"no such format; there are: {', '.join(get_args(Kind))}"
        raise ConfigError("FORMAT", f"--format {kind}", what, "choose one of these")
    if kind == "text" and n_best > 1:
        what = f"text has one translation a line, not {n_best}"
        raise ConfigError("FORMAT", "--n-best", what, "choose --format moses or json")
    if kind == "moses":
        return partial(moses, alignments)
    if kind == "json":
        return as_json
    return partial(columns, scores, alignments) if scores or alignments else text


def text(number: int, source: str, translation: Translation) -> str:
    """The translation alone."""
    return translation.text


def columns(
    scores: bool, alignments: bool, number: int, source: str, translation: Translation
) -> str:
    """Score, translation, alignment, with tabs between; a tab in the translation is a space."""
    cells = [figure(translation.score)] if scores else []
    cells.append(translation.text.replace("\t", " "))
    cells += [pharaoh(translation)] if alignments else []
    return "\t".join(cells)


def moses(alignments: bool, number: int, source: str, translation: Translation) -> str:
    """A line a hypothesis: `line ||| translation ||| F0= log-probability ||| score`.

    With alignments they are a fifth field. A `|||` in a translation is written `| | |`.
    """
    rows = []
    for each in translation.alternatives or (translation,):
        gain = math.fsum(each.log_probabilities)
        fields = [str(number), each.text.replace("|||", "| | |"), f"F0= {figure(gain)}"]
        fields.append(figure(each.score))
        fields += [pharaoh(each)] if alignments else []
        rows.append(" ||| ".join(fields))
    return "\n".join(rows)


def as_json(number: int, source: str, translation: Translation) -> str:
    """All that is known, as one JSON object."""
    value = {"line": number, "source": source, "source_tokens": translation.source_tokens}
    value |= _hypothesis(translation)
    value["alternatives"] = [_hypothesis(each) for each in translation.alternatives]
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _hypothesis(found: Translation) -> dict[str, Any]:
    value: dict[str, Any] = {
        "text": found.text,
        "score": rounded(found.score),
        "tokens": found.tokens,
        "log_probabilities": [rounded(gain) for gain in found.log_probabilities],
    }
    if found.prefix:
        value["prefix"] = found.prefix
    if found.alignment is not None:
        value["alignment"] = [[rounded(share) for share in row] for row in found.alignment]
        value["source_words"] = [word for word, _ in words(found.source_tokens)]
        value["words"] = [word for word, _ in words(found.tokens)]
        value["links"] = links(found)
    return value


def score_text(normalise: bool, source: str, target: str, score: Score) -> str:
    """The log-probability of a target; divided by its tokens when `normalise`."""
    return figure(_value(normalise, score))


def score_json(normalise: bool, source: str, target: str, score: Score) -> str:
    """All that is known of a scored pair, as one JSON object."""
    value = {
        "source": source,
        "target": target,
        "score": rounded(_value(normalise, score)),
        "log_probability": rounded(score.log_probability),
        "tokens": score.pieces,
        "log_probabilities": [rounded(gain) for gain in score.token_log_probabilities],
    }
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _value(normalise: bool, score: Score) -> float:
    return score.log_probability / max(1, score.tokens) if normalise else score.log_probability


def figure(value: float) -> str:
    """A score with six decimals."""
    return f"{value:.6f}"


def rounded(value: float) -> float | None:
    """A score with six decimals as JSON knows it: null when it is not finite."""
    return round(value, 6) if math.isfinite(value) else None


# ----------------------------------------------------------------------------- alignments


def pharaoh(translation: Translation) -> str:
    """The links of a translation as `source-target` word numbers from 0, as Pharaoh wrote them."""
    return " ".join(f"{source}-{target}" for source, target in links(translation))


def links(translation: Translation) -> list[tuple[int, int]]:
    """(source word, target word): for each target word the source word it attended to most.

    Of all the pieces of the two words the largest attention counts. A word that attended to no
    word (to the end of the source alone) has no link.
    """
    sources = [pieces for _, pieces in words(translation.source_tokens)]
    found = []
    for number, (_, pieces) in enumerate(words(translation.tokens)):
        rows = [(translation.alignment or ())[piece] for piece in pieces]
        shares = [max(row[piece] for row in rows for piece in source) for source in sources]
        if max(shares, default=0.0) > 0:
            found.append((shares.index(max(shares)), number))
    return found


def words(pieces: Sequence[str]) -> list[tuple[str, range]]:
    """Pieces put together to what stands between spaces: each word, and which pieces it is of.

    Where a script puts no spaces between words each piece is a word; so it is where no piece
    says that it begins a word.
    """
    starts = list(_starts(pieces))
    ends = [*starts[1:], len(pieces)][: len(starts)]
    return [
        ("".join(pieces[start:end]).replace(WORD_START, ""), range(start, end))
        for start, end in zip(starts, ends, strict=True)
    ]


def readable(pieces: Sequence[str]) -> list[str]:
    """Pieces as a reader knows them: a word begins with no mark, what continues one with a dot.

    Punctuation needs no dot; a piece that is the mark alone is shown as a space.
    """
    marked = any(piece.startswith(WORD_START) for piece in pieces)
    shown, before = [], ""
    for piece in pieces:
        within = marked and _is_letter(before[-1:]) and _is_letter(piece[:1])
        dot = "\u00b7" if within and not _is_unspaced(before, piece) else ""
        shown.append(dot + piece.replace(WORD_START, "") or "\u2423")
        before = piece
    return shown


def _is_letter(character: str) -> bool:
    """Whether it is a letter, a mark upon one, or a digit."""
    return unicodedata.category(character or " ")[0] in "LMN"


def _starts(pieces: Sequence[str]) -> Iterator[int]:
    """Where words begin; a piece of the mark alone begins no word that nothing follows."""
    marked = any(piece.startswith(WORD_START) for piece in pieces)
    last = max((i for i, piece in enumerate(pieces) if piece != WORD_START), default=-1)
    visible, before = True, ""  # whether the word so far is more than its mark; the piece before
    for number, piece in enumerate(pieces):
        begins = piece.startswith(WORD_START) or not marked or _is_unspaced(before, piece)
        if number == 0 or (begins and visible and number <= last):
            yield number
            visible = False
        visible = visible or piece != WORD_START
        before = piece


def _is_unspaced(before: str, piece: str) -> bool:
    return any(unicodedata.name(c, "").startswith(UNSPACED) for c in (before[-1:], piece[:1]) if c)
