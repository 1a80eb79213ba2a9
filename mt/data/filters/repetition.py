"""The same words again and again, as models in a loop write.

OpusFilter's `RepetitionFilter` drops what repeats a piece of 3 to 100 characters twice or more.
"""

from __future__ import annotations

import re
from functools import partial
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field

from mt.config.schema import FilterConfig
from mt.config.section import MAX_LENGTH
from mt.data.cleaning import Context, EachSide, Filter


class Config(FilterConfig):
    """What counts as a repetition."""

    kind: Literal["repetition"] = "repetition"
    shortest: int = Field(3, ge=1, le=1000)
    """Fewest characters of the piece that repeats."""
    longest: int = Field(100, ge=1, le=1000)
    """Most characters of it."""
    times: int = Field(4, ge=2, le=MAX_LENGTH)
    """It stands so often in a row, with or without spaces between."""

    compares_sides: ClassVar[bool] = False


def build(config: Config, context: Context) -> Filter:
    """Return the filter."""
    piece = rf"\S.{{{config.shortest - 1},{max(config.longest, config.shortest) - 1}}}?"
    pattern = re.compile(rf"(?=({piece})(?:\s*\1){{{config.times - 1}}})")
    judge = partial(_judge, config, pattern)
    return EachSide(judge, judge)


def _judge(config: Config, pattern: re.Pattern[str], text: str) -> str | None:
    # A repetition has the same pairs of words again: nearly all lines are decided here.
    if len(text) < config.shortest * config.times:
        return None
    words = text.split()
    if len(text) < 12 * len(words):  # else it has no spaces
        neighbours = list(pairwise(words))
        if len(neighbours) - len(set(neighbours)) < config.times - 3:
            return None
    found = pattern.search(text)
    return found[1] if found else None
