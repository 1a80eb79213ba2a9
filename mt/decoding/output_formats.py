"""Translations and scores as lines of text: plain, columns, Moses n-best lists, JSON, alignments.

A rendering gives the lines that stand for one line of input: one, but for n-best lists.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

from mt.decoding.types import Score, Translation
from mt.decoding.word_alignment import format_pharaoh, to_words, word_links
from mt.errors import ConfigError

Kind = Literal["text", "moses", "json"]
Formatter = Callable[[int, str, Translation], str]
"""(line number from 0, source, translation) to one or several lines, without the last newline."""


def make_formatter(
    kind: str | None, n_best: int = 1, scores: bool = False, alignments: bool = False
) -> Formatter:
    """How translations are written.

    Args:
        kind: `text`, `moses` or `json`; None: `moses` for n-best lists, else `text`.
        n_best: how many hypotheses a line were asked for.
        scores: with their scores, in `format_text`; the others always have them.
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
        return partial(format_moses, alignments)
    if kind == "json":
        return format_json
    return partial(format_columns, scores, alignments) if scores or alignments else format_text


def format_text(number: int, source: str, translation: Translation) -> str:
    """The translation alone."""
    return translation.text


def format_columns(
    scores: bool, alignments: bool, number: int, source: str, translation: Translation
) -> str:
    """Score, translation, alignment, with tabs between; a tab in the translation is a space."""
    cells = [format_number(translation.score)] if scores else []
    cells.append(translation.text.replace("\t", " "))
    cells += [format_pharaoh(translation)] if alignments else []
    return "\t".join(cells)


def format_moses(alignments: bool, number: int, source: str, translation: Translation) -> str:
    """A line a hypothesis: `line ||| translation ||| F0= log-probability ||| score`.

    With alignments they are a fifth field. A `|||` in a translation is written `| | |`.
    """
    rows = []
    for each in translation.alternatives or (translation,):
        gain = math.fsum(each.log_probabilities)
        fields = [str(number), each.text.replace("|||", "| | |"), f"F0= {format_number(gain)}"]
        fields.append(format_number(each.score))
        fields += [format_pharaoh(each)] if alignments else []
        rows.append(" ||| ".join(fields))
    return "\n".join(rows)


def format_json(number: int, source: str, translation: Translation) -> str:
    """All that is known, as one JSON object."""
    value = {"line": number, "source": source, "source_tokens": translation.source_tokens}
    value |= _hypothesis_fields(translation)
    value["alternatives"] = [_hypothesis_fields(each) for each in translation.alternatives]
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _hypothesis_fields(found: Translation) -> dict[str, Any]:
    value: dict[str, Any] = {
        "text": found.text,
        "score": round_number(found.score),
        "tokens": found.tokens,
        "log_probabilities": [round_number(gain) for gain in found.log_probabilities],
    }
    if found.prefix:
        value["prefix"] = found.prefix
    if found.alignment is not None:
        value["alignment"] = [[round_number(share) for share in row] for row in found.alignment]
        value["source_words"] = [word for word, _ in to_words(found.source_tokens)]
        value["words"] = [word for word, _ in to_words(found.tokens)]
        value["links"] = word_links(found)
    return value


def format_score(normalise: bool, source: str, target: str, score: Score) -> str:
    """The log-probability of a target; divided by its tokens when `normalise`."""
    return format_number(_finite_or_none(normalise, score))


def format_score_json(normalise: bool, source: str, target: str, score: Score) -> str:
    """All that is known of a scored pair, as one JSON object."""
    value = {
        "source": source,
        "target": target,
        "score": round_number(_finite_or_none(normalise, score)),
        "log_probability": round_number(score.log_probability),
        "tokens": score.pieces,
        "log_probabilities": [round_number(gain) for gain in score.token_log_probabilities],
    }
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _finite_or_none(normalise: bool, score: Score) -> float:
    return score.log_probability / max(1, score.tokens) if normalise else score.log_probability


def format_number(value: float) -> str:
    """A score with six decimals."""
    return f"{value:.6f}"


def round_number(value: float) -> float | None:
    """A score with six decimals as JSON knows it: null when it is not finite."""
    return round(value, 6) if math.isfinite(value) else None
