"""Groups of the lines of a test set: by source length, and by how rare their words are.

A line is as rare as its rarest source word is in the training text. A word is a run of letters,
whatever their case; where no spaces are written it is a character.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray

from mt.config.plugins import plugin
from mt.config.recipe import Recipe
from mt.config.section import input_files
from mt.data.scripts import word_counter, writes_spaces
from mt.errors import MtError
from mt.runtime import console

LENGTHS = (1, 11, 21, 31, 51)
"""Words of a source at which a bucket begins."""
COUNTS = (0, 1, 10, 100, 1000)
"""How often the rarest word is in the training text, at the begin of each bucket."""
PAIRS = 1_000_000
"""Training pairs in which words are counted, the first of each corpus."""

_WORD = regex.compile(r"[\p{L}\p{M}]+")
_CHARACTER = regex.compile(r"[\p{L}\p{M}]")


@dataclass(frozen=True)
class Bucket:
    """Some lines of a test set."""

    by: str
    """What divides the lines, such as `source words`."""
    name: str
    """Which of them are in it, such as `11-20`."""
    rows: NDArray[np.int64]


def group_by_length(sources: Sequence[str], language: str) -> list[Bucket]:
    """Group lines by the words of the source; without spaces, two characters are a word."""
    count = word_counter(language)
    return _group("source words", [count(line) for line in sources], LENGTHS)


def group_by_rarity(
    sources: Sequence[str], language: str, counts: Mapping[str, int]
) -> list[Bucket]:
    """Group lines by the rarest source word; `counts` is of `count_training_words`."""
    split = word_splitter(language)
    rarest = [min((counts.get(word, 0) for word in split(line)), default=-1) for line in sources]
    return _group("rarest word in training", rarest, COUNTS)


def word_splitter(language: str) -> Callable[[str], list[str]]:
    """Return the function that splits a text of a language into words, in lower case."""
    pattern = _WORD if writes_spaces(language) else _CHARACTER
    return lambda text: pattern.findall(text.lower())


def _group(by: str, values: Sequence[int], begins: Sequence[int]) -> list[Bucket]:
    """Return the buckets that have lines; a value below the first begin is in none."""
    ends: list[int | None] = [*(begin - 1 for begin in begins[1:]), None]
    places = np.digitize(np.array(values), begins) - 1
    found = []
    for place, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        rows = np.flatnonzero(places == place)
        name = f"{begin}+" if end is None else str(begin) if begin == end else f"{begin}-{end}"
        found += [Bucket(by, name, rows)] if len(rows) else []
    return found


def count_training_words(
    lines: Iterable[str], language: str, recipe: Recipe
) -> Counter[str] | None:
    """Count the words of some lines in the sources of the training corpora.

    None, with a warning why, unless these are files of this machine.
    """
    split = word_splitter(language)
    words = {word for line in lines for word in split(line)}
    corpora: list[Any] = [
        config for config in recipe.data.train
        if config.side is None and config.direction.source == language
    ]  # fmt: skip
    paths = [path for config in corpora for path in (input_files(config) or {"": ""}).values()]
    if not paths or not all(Path(path).is_file() for path in paths):
        warning = "the training text is not here, so lines are not grouped by rare words"
        console.warn_once("RARITY", warning)
        return None
    counts: Counter[str] = Counter()
    try:
        for config in corpora:
            pairs = plugin("sources", config.kind).read(config)
            for pair in itertools.islice(pairs, PAIRS // len(corpora)):
                counts.update(word for word in split(pair.source or "") if word in words)
    except MtError as error:
        where, what = error.problems[0]
        warning = f"{where}: {what}; lines are not grouped by rare words"
        console.warn_once("RARITY", warning)
        return None
    return counts
