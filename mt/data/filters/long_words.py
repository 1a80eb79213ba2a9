"""Words of very many letters: lines that lost their spaces, keys, base64.

OpusFilter's `LongWordFilter` drops from 40 characters on, mozilla/translations from 150 on.
"""

from __future__ import annotations

import re
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from mt.config.schema import FilterConfig
from mt.config.section import MAX_LENGTH
from mt.data.cleaning import Context, EachSide, Filter, Judge
from mt.data.scripts import writes_spaces

_ADDRESS = re.compile(r"://|www\.|@")


class Config(FilterConfig):
    """The longest word."""

    kind: Literal["long_words"] = "long_words"
    most: int = Field(40, ge=1, le=MAX_LENGTH)
    """Most characters between two spaces; Internet addresses may be longer."""

    compares_sides: ClassVar[bool] = False


def build(config: Config, context: Context) -> Filter:
    """Return the filter, which spares languages without spaces."""
    judges: list[Judge | None] = []
    for code in context.languages:
        if writes_spaces(code):
            judges.append(partial(_judge, config.most))
        else:
            judges.append(None)
            context.note(f"finds no words in {code}, which has no spaces between them")
    return EachSide(*judges)


def _judge(most: int, text: str) -> int | None:
    if len(text) <= most:
        return None
    longest = max(text.split(), key=len)
    if len(longest) <= most:
        return None
    words = [len(word) for word in text.split() if not _ADDRESS.search(word)]
    return max(words) if words and max(words) > most else None
