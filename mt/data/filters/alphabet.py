"""Lines of digits, punctuation and symbols: tables, scores, drawings.

The share of letters is at least 0.5 as in mozilla/translations (its character-alpha ratio);
OpusFilter's `AlphabetRatioFilter` begins at 0.75.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from mt.config.schema import FilterConfig
from mt.config.section import MAX_LENGTH
from mt.data.cleaning import Context, EachSide, Filter
from mt.data.scripts import count_letters


class Config(FilterConfig):
    """The least share."""

    kind: Literal["alphabet"] = "alphabet"
    least: float = Field(0.5, ge=0, le=1)
    """Least share of letters, of any script, among the characters that are no spaces."""
    spared: int = Field(12, ge=0, le=MAX_LENGTH)
    """A side of at most so many characters is kept, such as `At 5:30.`."""

    compares_sides: ClassVar[bool] = False


def build(config: Config, context: Context) -> Filter:
    """Return the filter."""
    judge = partial(_judge, config)
    return EachSide(judge, judge)


def _judge(config: Config, text: str) -> float | None:
    if text.isalpha() or len(text) <= config.spared:
        return None
    letters, characters = count_letters(text), len("".join(text.split()))
    return None if letters >= config.least * characters else round(letters / characters, 3)
