"""Internet and e-mail addresses that the sides do not share.

mozilla/translations drops pairs with other addresses (`url_mismatch`).
"""

from __future__ import annotations

from typing import Literal

from mt.config.schema import FilterConfig
from mt.data.cleaning import Context, EachPair, Filter
from mt.data.duplicates import missing_part
from mt.data.untranslatable import addresses


class Config(FilterConfig):
    """Nothing to choose."""

    kind: Literal["urls"] = "urls"


def build(config: Config, context: Context) -> Filter:
    """Return the filter."""
    return EachPair(_judge)


def _judge(source: str, target: str) -> str | None:
    a, b = addresses(source), addresses(target)
    return missing_part(a, b) if a or b else None
