"""Placeholders of software texts that the sides do not share: `{0}`, `%s`, `${name}`, `<x/>`.

A model that learns from such pairs loses them. Neither OpusFilter nor mozilla/translations has
this rule; Weblate checks the same of what translators write.
"""

from __future__ import annotations

import re
from typing import Literal

from mt.config.schema import FilterConfig
from mt.data.cleaning import Context, EachPair, Filter
from mt.data.duplicates import missing_part

_PLACEHOLDER = re.compile(
    r"\$?\{\{?\s?[\w.]{0,60}\s?\}?\}"
    r"|(?<![\d%])(?<!\d\s)%(?:\d+\$|\(\w+\))?[sdifuxc@](?!\w)"
    r"|</?(?:x|g|bx|ex|ph)\b[^<>]{0,80}>"
)
_SIGNS = re.compile(r"[{%<]")


class Config(FilterConfig):
    """Nothing to choose."""

    kind: Literal["placeholders"] = "placeholders"


def build(config: Config, context: Context) -> Filter:
    """Return the filter."""
    return EachPair(_judge)


def _judge(source: str, target: str) -> str | None:
    if not _SIGNS.search(source) and not _SIGNS.search(target):
        return None
    return missing_part(_PLACEHOLDER.findall(source), _PLACEHOLDER.findall(target))
