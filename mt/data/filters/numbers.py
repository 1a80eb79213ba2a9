"""Numbers that the sides do not share.

Zeros at the ends and the signs between thousands do not count, as in OpusFilter's
`NonZeroNumeralsFilter`, so that 2,000,000 equals 2 million; its threshold of 0.5 is taken over.
mozilla/translations wants all numbers to agree (`num_mismatch`, ratio 1).
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from typing import Literal

from pydantic import Field

from mt.config.schema import FilterConfig
from mt.config.section import MAX_LENGTH
from mt.data.cleaning import Context, EachPair, Filter
from mt.data.untranslatable import NUMERAL, ascii_digits

_NUMBER = re.compile(r"\d{1,3}(?:[.,'’\u00a0\u202f ]\d{3})+(?!\d)|\d+")
_DIGIT = re.compile(r"\d")


class Config(FilterConfig):
    """How much must agree."""

    kind: Literal["numbers"] = "numbers"
    least: float = Field(0.5, ge=0, le=1)
    """Least share of the numbers of both sides that the other side has, too."""
    spared: int = Field(3, ge=0, le=MAX_LENGTH)
    """A side without digits is kept where the other side has at most so many: it may spell the
    number in words."""


def build(config: Config, context: Context) -> Filter:
    """Return the filter."""
    return EachPair(partial(_judge, config))


def _judge(config: Config, source: str, target: str) -> str | None:
    if not (_DIGIT.search(source) or _DIGIT.search(target)):
        return None
    a, b = _numbers(source), _numbers(target)
    shared, total = (a & b).total(), a.total() + b.total()
    if 2 * shared >= config.least * total or _digits(source) == _digits(target):
        return None
    if not a or not b:
        silent = target if a else source
        digits = sum(map(len, (a or b).elements()))
        if digits <= config.spared or NUMERAL.search(silent):
            return None
    return next(iter((a - b) or (b - a)))


def _digits(text: str) -> str:
    """Return the digits of a text without zeros: 25 of 2.5 million and of 250."""
    return ascii_digits(text).replace("0", "")


def _numbers(text: str) -> Counter[str]:
    """Return the numbers of a text: their digits, without the zeros at both ends."""
    found = (ascii_digits(number) for number in _NUMBER.findall(text))
    return Counter(digits.strip("0") or "0" for digits in found)
