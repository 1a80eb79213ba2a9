"""Characters that no text has: controls, U+FFFD, private use, overrides of the direction.

U+FFFD is what remains of a byte that could not be decoded. mozilla/translations and OpusFilter
have no such rule; a tab is text here.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from mt.config.schema import FilterConfig
from mt.data.cleaning import Context, EachSide, Filter

_CONTROL = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u202d\u202e\ud800-\uf8ff\ufffd-\uffff\U000f0000-\U0010ffff]"
)


class Config(FilterConfig):
    """Nothing to choose."""

    kind: Literal["control_characters"] = "control_characters"

    compares_sides: ClassVar[bool] = False


def build(config: Config, context: Context) -> Filter:
    """Return the filter."""
    return EachSide(_judge, _judge)


def _judge(text: str) -> str | None:
    found = _CONTROL.search(text)
    return f"U+{ord(found[0]):04X}" if found else None
