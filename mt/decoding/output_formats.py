"""Translations and scores as lines of text: plain, columns, Moses n-best lists, JSON, alignments.

A formatter returns the output lines of one input line: one, except for n-best lists.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

from mt.decoding.quality import Calibration
from mt.decoding.types import Score, Translation
from mt.decoding.word_alignment import format_pharaoh, to_words, word_links
from mt.errors import ConfigError

Kind = Literal["text", "moses", "json"]
Formatter = Callable[[int, str, Translation], str]
"""(line number from 0, source, translation) to one or several lines, without the last newline."""


def make_formatter(
    kind: str | None, n_best: int = 1, scores: bool = False, alignments: bool = False,
    quality: Calibration | None = None,
) -> Formatter:  # fmt: skip
    """The formatter of a kind; by default `moses` for n-best lists, else `text`.

    Args:
        scores: add them to `text`; the others always have them.
        quality: add the expected chrF by it to `text` and `json`.

    Raises:
        ConfigError: there is no such format, or it has no place for n-best lists.
    """
    kind = kind or ("moses" if n_best > 1 else "text")
    if kind not in get_args(Kind):
        what = f"no such format; there are: {', '.join(get_args(Kind))}"
        raise ConfigError("FORMAT", f"--format {kind}", what, "choose one of these")
    if kind == "text" and n_best > 1:
        what = f"text has one translation a line, not {n_best}"
        raise ConfigError("FORMAT", "--n-best", what, "choose --format moses or json")
    if kind == "moses" and quality is not None:
        what, advice = "a Moses list has no place for it", "choose --format text or json"
        raise ConfigError("FORMAT", "--quality", what, advice)
    if kind == "moses":
        return partial(format_moses, alignments)
    if kind == "json":
        return partial(format_json, quality)
    columns = scores or alignments or quality
    return partial(format_columns, scores, alignments, quality) if columns else format_text


def format_text(number: int, source: str, translation: Translation) -> str:
    """The translation alone."""
    return translation.text


def format_columns(
    scores: bool, alignments: bool, quality: Calibration | None, number: int, source: str,
    translation: Translation,
) -> str:  # fmt: skip
    """Expected chrF, score, translation, alignment, with tabs between.

    A tab in the translation is a space.
    """
    cells = [] if quality is None else [f"{quality.expected_chrf(translation):.1f}"]
    cells += [format_number(translation.score)] if scores else []
    cells.append(translation.text.replace("\t", " "))
    cells += [format_pharaoh(translation)] if alignments else []
    return "\t".join(cells)


def format_moses(alignments: bool, number: int, source: str, translation: Translation) -> str:
    """A line a hypothesis: `line ||| translation ||| F0= log-probability ||| score`.

    With alignments they are a fifth field. A `|||` in a translation is written `| | |`.
    """
    rows = []
    for each in translation.alternatives or (translation,):
        total = format_number(math.fsum(each.log_probabilities))
        fields = [str(number), each.text.replace("|||", "| | |"), f"F0= {total}"]
        fields.append(format_number(each.score))
        fields += [format_pharaoh(each)] if alignments else []
        rows.append(" ||| ".join(fields))
    return "\n".join(rows)


def format_json(
    quality: Calibration | None, number: int, source: str, translation: Translation
) -> str:
    """The whole translation as one JSON object."""
    value: dict[str, Any] = {"line": number, "source": source}
    value["source_tokens"] = translation.source_tokens
    if quality is not None:
        value["expected_chrf"] = round(quality.expected_chrf(translation), 2)
    value |= _hypothesis_fields(translation)
    value["alternatives"] = [_hypothesis_fields(each) for each in translation.alternatives]
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _hypothesis_fields(one: Translation) -> dict[str, Any]:
    value: dict[str, Any] = {
        "text": one.text,
        "score": round_number(one.score),
        "tokens": one.tokens,
        "log_probabilities": list(map(round_number, one.log_probabilities)),
        "truncated": one.truncated,
    }
    if one.prefix:
        value["prefix"] = one.prefix
    if one.alignment is not None:
        value["alignment"] = [list(map(round_number, row)) for row in one.alignment]
        value["source_words"] = [word for word, _ in to_words(one.source_tokens)]
        value["words"] = [word for word, _ in to_words(one.tokens)]
        value["links"] = word_links(one)
    return value


def format_score(normalise: bool, source: str, target: str, score: Score) -> str:
    """The log-probability of a target; divided by its tokens when `normalise`."""
    return format_number(_value(normalise, score))


def format_score_json(normalise: bool, source: str, target: str, score: Score) -> str:
    """A scored pair as one JSON object."""
    value = {
        "source": source,
        "target": target,
        "score": round_number(_value(normalise, score)),
        "log_probability": round_number(score.log_probability),
        "tokens": score.pieces,
        "log_probabilities": list(map(round_number, score.token_log_probabilities)),
    }
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _value(normalise: bool, score: Score) -> float:
    return score.log_probability / max(1, score.tokens) if normalise else score.log_probability


def format_number(value: float) -> str:
    """A score with six decimals."""
    return f"{value:.6f}"


def round_number(value: float) -> float | None:
    """A score with six decimals for JSON: null when it is not finite."""
    return round(value, 6) if math.isfinite(value) else None
