"""Lines to translate: read in windows, put in batches, blank or not, cut into sentences.

What every engine needs and no model: nothing here imports torch.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from mt.contracts import Translation

FIRST_WINDOW, LARGEST_WINDOW = 64, 4096
"""Lines that are sorted together: in the first window, so that output comes soon; and at most."""
NO_SPACES = {"zh", "ja", "yue", "lzh", "cmn", "zho", "jpn"}
"""Languages whose sentences follow one another without a space."""
Item = TypeVar("Item")


def windows(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items in lists that grow from FIRST_WINDOW to LARGEST_WINDOW."""
    iterator, size = iter(items), FIRST_WINDOW
    while window := list(islice(iterator, size)):
        yield window
        size = min(2 * size, LARGEST_WINDOW)


def batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Rows of like length, the longest first; rows times the longest is at most `tokens`."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    start = 0
    while start < len(order):
        end = start + max(1, tokens // max(1, lengths[order[start]]))
        yield order[start:end]
        start = end


def is_blank(line: str) -> bool:
    """Whether a line has nothing to translate: white space, control and format characters only."""
    return all(unicodedata.category(c) in ("Zs", "Zl", "Zp", "Cc", "Cf") for c in line)


# Fixed-width look-behinds, so that no line, however odd, takes more than linear time.
_SENTENCE_END = re.compile(
    r"(?:(?<=[.!?;…])|(?<=[.!?;…][\"'”’»)\]]))(?=\s)"
    r"|(?<=[。！？；])(?![。！？；”’」』）])|(?<=[。！？；][”’」』）])"
)


def split_sentences(line: str) -> list[str]:
    """A line cut after its sentences; nothing is lost."""
    return [part for part in _SENTENCE_END.split(line) if part]


def plain_code(language: str) -> str:
    """A language code without its region or script: `zh` of `zh-Hans`."""
    return re.split("[-_]", language.lower())[0]


def space_between(language: str) -> str:
    """What stands between two sentences of a language."""
    return "" if plain_code(language) in NO_SPACES else " "


def joined(parts: Sequence[Translation], space: str) -> Translation:
    """The translation of a line from those of its parts; the scores are added."""
    ranked = zip(*(part.alternatives for part in parts), strict=False)
    return Translation(
        text=space.join(part.text for part in parts),
        score=math.fsum(part.score for part in parts),
        tokens=tuple(token for part in parts for token in part.tokens),
        log_probabilities=tuple(gain for part in parts for gain in part.log_probabilities),
        alternatives=tuple(joined(each, space) for each in ranked),
    )
