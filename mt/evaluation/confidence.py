"""The expected chrF of the lines of a test set: its file, and how well it fits their chrF.

`RUN/hypotheses/NAME.confidence.jsonl` has a line for each translation, in order: its expected chrF
(see `mt.decoding.quality`), and the probability of each of its words where these are known.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated, TypedDict

import numpy as np
from pydantic import Field

from mt.decoding.quality import Calibration, confidence
from mt.decoding.types import Translation
from mt.decoding.word_alignment import to_words
from mt.errors import DataError
from mt.runtime import files, model_files
from mt.runtime.model_files import JsonObject

THRESHOLD = 50.0
"""Expected chrF above which a line counts as likely to be usable."""


class LineConfidence(TypedDict):
    """How sure a model is of a translation."""

    expected_chrf: float
    """0 to 100."""
    words: list[tuple[str, float]]
    """The words of the text, or its pieces where the script puts no spaces between words, each with
    its probability: the geometric mean of those of its pieces, 0 to 1. Empty where the pieces do
    not spell the text."""


class ExpectedChrf(TypedDict):
    """The expected chrF of a test set."""

    lines: int
    mean: float
    """Of the expected chrF of all lines."""
    correlation: float | None
    """Of expected chrF and chrF (Pearson); None where all lines have the same."""
    threshold: float
    share_above: float
    """The share of the lines whose expected chrF is above the threshold."""


_Word = Annotated[tuple[str, float], Field(strict=False)]  # JSON has lists only


class _Line(JsonObject):
    expected_chrf: float = Field(ge=0, le=100)
    words: list[_Word] = Field(default_factory=list)


def rate_lines(
    calibration: Calibration | None, translations: Sequence[Translation]
) -> list[LineConfidence] | None:
    """Return the confidence of each line; None without a calibration or without probabilities."""
    known = all(each.log_probabilities or not each.text.strip() for each in translations)
    if calibration is None or not known:
        return None
    return [
        {"expected_chrf": round(calibration.expected_chrf(each), 2), "words": _rate_words(each)}
        for each in translations
    ]


def _rate_words(translation: Translation) -> list[tuple[str, float]]:
    values = translation.log_probabilities
    if len(values) != len(translation.tokens) + 1:  # a line of several parts has several ends
        return []
    words = to_words(translation.tokens)
    if "".join(word for word, _ in words) != translation.text.replace(" ", ""):
        return []
    return [
        (word, round(confidence(values[places.start : places.stop]), 2))
        for word, places in words if word
    ]  # fmt: skip


def rate_units(words: Sequence[tuple[str, float]], units: Sequence[str]) -> list[float]:
    """Return the probability of each unit of a text, its words or its characters, without spaces.

    A unit is as likely as the least likely word that it is a part of, or has a part of. All are 1
    where the words spell another text.
    """
    by_character = [probability for word, probability in words for _ in word]
    if "".join(word for word, _ in words) != "".join(units):
        return [1.0] * len(units)
    ends = [*accumulate(map(len, units))]
    return [min(by_character[end - len(unit) : end]) for unit, end in zip(units, ends, strict=True)]


def describe_expected(lines: Sequence[LineConfidence], chrf: Sequence[float]) -> ExpectedChrf:
    """Compare the expected chrF of lines with their chrF."""
    x = np.array([line["expected_chrf"] for line in lines], np.float64)
    y = np.asarray(chrf, np.float64)
    varied = len(x) > 1 and min(x.std(), y.std()) > 1e-9
    return {
        "lines": len(x), "mean": round(float(x.mean()), 2),
        "correlation": round(float(np.corrcoef(x, y)[0, 1]), 4) if varied else None,
        "threshold": THRESHOLD, "share_above": round(float((x > THRESHOLD).mean()), 4),
    }  # fmt: skip


def write_confidences(path: Path, lines: Sequence[LineConfidence]) -> None:
    """Write the file; raises a MachineError when that is impossible."""
    files.write_file(path, "".join(f"{json.dumps(line)}\n" for line in lines))


def read_confidences(path: Path, count: int, advice: str) -> list[LineConfidence] | None:
    """Read the file of `count` translations; None where there is none.

    Raises:
        ModelError: it is damaged.
        DataError: it has another number of lines.
    """
    if not path.exists():
        return None
    lines: list[LineConfidence] = [
        {"expected_chrf": float(line["expected_chrf"]), "words": list(line.get("words", ()))}
        for line in model_files.read_json_lines(path, _Line, advice=advice)
    ]
    if len(lines) != count:
        what = f"{len(lines)} lines, there are {count} translations"
        raise DataError("REPORT-LINES", path, what, advice)
    return lines
