"""Too short or too long: the words of each side.

The upper bound is that of mozilla/translations (`max_length` of 150 words in its
`default.filters.json`); OpusFilter's `LengthFilter` begins at 1 to 100.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from mt.config.schema import FilterConfig
from mt.config.section import MAX_LENGTH
from mt.data.cleaning import Context, EachSide, Filter
from mt.data.scripts import word_counter


class Config(FilterConfig):
    """Fewest and most words."""

    kind: Literal["length"] = "length"
    fewest: int = Field(1, ge=0, le=MAX_LENGTH)
    """Fewest words of a side; in languages without spaces two characters are a word."""
    most: int = Field(150, ge=1, le=MAX_LENGTH)
    """Most words of a side."""

    compares_sides: ClassVar[bool] = False

    @model_validator(mode="after")
    def _ascending(self) -> Config:
        if self.fewest > self.most:
            raise ValueError(f"fewest ({self.fewest}) is more than most ({self.most})")
        return self


def build(config: Config, context: Context) -> Filter:
    """Return the filter."""
    source, target = (partial(_judge, word_counter(code), config) for code in context.languages)
    return EachSide(source, target)


def _judge(count: Callable[[str], int], config: Config, text: str) -> int | None:
    words = count(text)
    return None if config.fewest <= words <= config.most else words
