"""Faults of translations that are seen without a reference: what is lost, repeated or left out."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from mt.data.text import repeats
from mt.data.untranslatable import addresses, placeholders, tags

_NUMBER = re.compile(r"\d+")
_BRACKETS = "()[]{}"
SHORT, LONG = 0.4, 2.5
"""Characters of a translation over those of its source, as multiples of the usual ratio."""


def find_errors(sources: Sequence[str], hypotheses: Sequence[str]) -> dict[str, list[int]]:
    """Return for each kind of fault the lines that have it, counted from 0."""
    found: dict[str, list[int]] = {kind: [] for kind in (*_KEPT, *_ALONE, "too short", "too long")}
    usual = sum(map(len, hypotheses)) / max(1, sum(map(len, sources)))
    for row, (source, output) in enumerate(zip(sources, hypotheses, strict=True)):
        if not source.strip():
            continue
        for kind, items in _KEPT.items():
            if Counter(items(source)) - Counter(items(output)):
                found[kind].append(row)
        for kind, has in _ALONE.items():
            if has(source, output):
                found[kind].append(row)
        ratio = len(output) / max(1.0, len(source) * usual)
        if len(source) > 20 and output.strip() and not SHORT <= ratio <= LONG:
            found["too short" if ratio < SHORT else "too long"].append(row)
    return {kind: rows for kind, rows in found.items() if rows}


def _numbers(text: str) -> list[str]:
    """Return the numbers of two digits or more: small ones are often written as words."""
    normal = unicodedata.normalize("NFKC", text)
    joined = re.sub(r"(?<=\d)[.,\u00a0\u202f ](?=\d{3}\b)", "", normal)
    return [number for number in _NUMBER.findall(joined) if len(number) > 1]


def _emoji(text: str) -> list[str]:
    return [c for c in text if unicodedata.category(c) == "So"]


_KEPT: dict[str, Callable[[str], list[str]]] = {
    "number lost": _numbers,
    "address lost": addresses,
    "tag or placeholder lost": lambda text: tags(text) + placeholders(text),
    "bracket lost": lambda text: [c for c in text if c in _BRACKETS],
    "emoji lost": _emoji,
}
_ALONE: dict[str, Callable[[str, str], bool]] = {
    "empty": lambda source, output: not output.strip(),
    "copy of the source": lambda source, output: (
        len(source.split()) > 2 and source.strip() == output.strip()
    ),
    "repetition": lambda source, output: repeats(output) and not repeats(source),
}
