"""Text in another script than that of its language.

OpusFilter's `CharacterScoreFilter` wants all letters to be of the script. A quarter is enough here:
names and terms of another script are in much good text, and one character of Chinese is a word.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import regex
from pydantic import Field

from mt.config.schema import FilterConfig
from mt.data.cleaning import Context, EachSide, Filter, Judge
from mt.data.scripts import letters_of, script_of, script_share


class Config(FilterConfig):
    """The least share."""

    kind: Literal["script"] = "script"
    least: float = Field(0.25, ge=0, le=1)
    """Least share of letters in the script that the language is most likely written in; a code
    such as `sr-Latn` names another."""

    compares_sides: ClassVar[bool] = False


def build(config: Config, context: Context) -> Filter:
    """Return the filter, which spares a language whose script is unknown."""
    judges: list[Judge | None] = []
    for code in context.languages:
        script = script_of(code)
        letters = letters_of(script) if script else None
        if letters is None:
            context.note(f"does not know the script of {code}")
        judges.append(partial(_judge, config.least, letters) if letters else None)
    return EachSide(*judges)


def _judge(least: float, letters: regex.Pattern[str], text: str) -> float | None:
    share = script_share(text, letters)
    return None if share >= least else round(share, 3)
