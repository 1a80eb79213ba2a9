"""Sides of very different length, which are seldom translations of each other.

OpusFilter's `LengthRatioFilter` drops from a ratio of 3 on, mozilla/translations from 2 on. Short
pairs are spared: one word often becomes four.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from pydantic import Field

from mt.config.schema import FilterConfig
from mt.config.section import MAX_LENGTH
from mt.data.cleaning import Context, EachPair, Filter
from mt.data.scripts import word_counter

Count = Callable[[str], int]


class Config(FilterConfig):
    """The largest ratio."""

    kind: Literal["ratio"] = "ratio"
    most: float = Field(3.0, ge=1, le=1000)
    """Most words of one side for each word of the other; in languages without spaces two
    characters are a word."""
    spared: int = Field(8, ge=0, le=MAX_LENGTH)
    """Pairs whose longer side has at most so many words are kept whatever their ratio."""


def build(config: Config, context: Context) -> Filter:
    """Return the filter."""
    source, target = map(word_counter, context.languages)
    return EachPair(partial(_judge, source, target, config))


def _judge(
    count_source: Count, count_target: Count, config: Config, source: str, target: str
) -> float | None:
    a, b = count_source(source), count_target(target)
    if a < b:
        a, b = b, a
    if a <= config.spared or a <= config.most * b:
        return None
    return round(a / max(b, 1), 2)
