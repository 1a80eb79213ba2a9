"""Targets that repeat their source, but for case, spaces and punctuation.

OpusFilter's `SimilarityFilter` drops sides alike by 0.9, its `LongestCommonSubstringFilter` those
of which the shorter one is by 0.9 in the longer one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from pydantic import Field

from mt.config.schema import FilterConfig
from mt.config.section import MAX_LENGTH
from mt.data.cleaning import Context, EachPair, Filter
from mt.data.duplicates import normal_form
from mt.data.scripts import word_counter


class Config(FilterConfig):
    """Which are spared."""

    kind: Literal["copies"] = "copies"
    spared: int = Field(2, ge=0, le=MAX_LENGTH)
    """Sources of at most so many words are kept, such as names; in languages without spaces two
    characters are a word."""


def build(config: Config, context: Context) -> Filter:
    """Return the filter."""
    return EachPair(partial(_judge, word_counter(context.source_language), config.spared))


def _judge(count: Callable[[str], int], spared: int, source: str, target: str) -> str | None:
    if len(source) > 2 * len(target) or len(target) > 2 * len(source):
        return None
    if normal_form(source) != normal_form(target) or count(source) <= spared:
        return None
    return "identical" if source == target else "alike"
