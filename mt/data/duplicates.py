"""Equality of texts: their normal form, and sets of many hashes in little memory."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import regex
import xxhash
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_NOISE = regex.compile(r"[\p{P}\p{S}\p{Z}\p{C}]+")
_ASCII_NOISE = bytes(code for code in range(128) if not chr(code).isalnum())


def normal_form(text: str) -> str:
    """Return a text without case, spaces, punctuation, symbols and compatibility forms.

    A text of nothing else is its own normal form.
    """
    if text.isascii():
        return text.lower().encode().translate(None, _ASCII_NOISE).decode() or text
    return _NOISE.sub("", unicodedata.normalize("NFKC", text).casefold()) or text


def hash_texts(texts: Iterable[str]) -> Hashes:
    """Return the 64-bit hash of each text.

    Two of 100,000,000 different texts have the same one with a probability of 0.03 %.
    """
    return np.fromiter(map(_hash, texts), np.uint64)


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


class HashSet:
    """A set of hashes of 8 bytes each, in a few sorted arrays; each is more than twice the next."""

    def __init__(self) -> None:
        self._runs: list[Hashes] = []

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def add(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Add hashes; return for each whether it was there, or stands before it in the array."""
        unique, first = np.unique(hashes, return_index=True)
        known = self.contains(unique)
        repeated: NDArray[np.bool_] = np.ones(len(hashes), bool)
        repeated[first] = known
        self._runs.append(unique[~known])
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            merged = np.concatenate([self._runs.pop(), self._runs.pop()])
            merged.sort(kind="stable")  # merges two sorted parts in linear time
            self._runs.append(merged)
        return repeated

    def contains(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Return for each hash whether it is in the set."""
        found: NDArray[Any] = np.zeros(len(hashes), bool)
        for run in self._runs:
            if len(run):
                place = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
                found |= run[place] == hashes
        return found


def missing_part(source: Iterable[str], target: Iterable[str]) -> str | None:
    """Return a part that one side has more often than the other; None: they have the same."""
    a, b = Counter(source), Counter(target)
    return None if a == b else next(iter((a - b) or (b - a)))
