"""Currencies that differ: dollars on one side, euros on the other.

mozilla/translations drops such pairs (its change 1199). A side without a sign or code may have
the word, and is kept.
"""

from __future__ import annotations

import re
from typing import Literal

from mt.config.schema import FilterConfig
from mt.data.cleaning import Context, EachPair, Filter

_GROUPS = {
    "dollar": r"\$|\b(?:USD|CAD|AUD)\b",
    "euro": r"€|\bEUR\b",
    "pound": r"£|\bGBP\b",
    "yen or yuan": r"[¥￥円]|\b(?:JPY|CNY|RMB)\b",
    "rupee": r"₹|\bINR\b",
    "rouble": r"₽|\bRUB\b",
    "won": r"₩|\bKRW\b",
    "franc": r"\bCHF\b",
    "zloty": r"\bzł\b|\bPLN\b",
}
_CURRENCY = re.compile("|".join(f"({pattern})" for pattern in _GROUPS.values()))
_NAMES = tuple(_GROUPS)
_SIGNS = re.compile(r"[$€£¥￥円₹₽₩]|zł|[A-Z]{3}")


class Config(FilterConfig):
    """Nothing to choose."""

    kind: Literal["currency"] = "currency"


def build(config: Config, context: Context) -> Filter:
    """Return the filter."""
    return EachPair(_judge)


def _judge(source: str, target: str) -> str | None:
    if not _SIGNS.search(source):  # decides nearly all pairs at once
        return None
    a = _currencies(source)
    if not a:
        return None
    b = _currencies(target)
    return f"{min(a)}, {min(b)}" if b and not a & b else None


def _currencies(text: str) -> set[str]:
    return {_NAMES[match.lastindex - 1] for match in _CURRENCY.finditer(text) if match.lastindex}
