"""Very different numbers of sentence ends: a side has sentences that the other has not.

After OpusFilter's `TerminalPunctuationFilter`, whose threshold of -2 allows a difference of six in
pairs of one sentence. Marks that follow each other count as one here.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Literal

from pydantic import Field

from mt.config.schema import FilterConfig
from mt.config.section import MAX_LENGTH
from mt.data.cleaning import Context, EachPair, Filter

# The last of several marks is one, the dots within an abbreviation are none.
_ENDS = re.compile(r"[.?!…](?=[\s\"”’»)]|$)|[。？！؟۔।॥։።]+")


class Config(FilterConfig):
    """The largest difference."""

    kind: Literal["punctuation"] = "punctuation"
    most: int = Field(4, ge=0, le=MAX_LENGTH)
    """Most sentence ends that one side has more than the other."""


def build(config: Config, context: Context) -> Filter:
    """Return the filter."""
    return EachPair(partial(_judge, config.most))


def _judge(most: int, source: str, target: str) -> int | None:
    difference = abs(len(_ENDS.findall(source)) - len(_ENDS.findall(target)))
    return None if difference <= most else difference
