"""Placeholders of software texts that the sides do not share: `{0}`, `%s`, `${name}`, `<x/>`.

A model that learns from such pairs loses them. Neither OpusFilter nor mozilla/translations has
this rule; Weblate checks the same of what translators write.
"""

from __future__ import annotations

from typing import Literal

from mt.config.schema import FilterConfig
from mt.data.cleaning import Context, EachPair, Filter
from mt.data.duplicates import missing_part
from mt.data.untranslatable import placeholders


class Config(FilterConfig):
    """Nothing to choose."""

    kind: Literal["placeholders"] = "placeholders"


def build(config: Config, context: Context) -> Filter:
    """Return the filter."""
    return EachPair(_judge)


def _judge(source: str, target: str) -> str | None:
    a, b = placeholders(source), placeholders(target)
    return missing_part(a, b) if a or b else None
