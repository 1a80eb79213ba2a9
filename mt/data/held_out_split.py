"""Split a corpus into training, validation and test text, without a sentence in two of them.

A pair is held out only if neither of its sides occurs in another pair, both in normal form (without
case, spaces and punctuation), and no rule of cleaning doubts it. The held-out pairs are spread
evenly over the corpus.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mt.config.schema import DataConfig
from mt.data import cleaning
from mt.data.pairs import read_pairs
from mt.data.report import measure_chunks
from mt.errors import DataError
from mt.runtime import files

MOST_HELD_OUT, SMALLEST_SHARE = 1_000, 20
"""Pairs of each held-out set: at most so many, and at most one of so many."""
FEWEST_PAIRS = 100
"""A corpus of fewer is no corpus to learn from."""
NAMES = ("train", "valid", "test")


class CorpusFacts(NamedTuple):
    """Facts of a corpus after it was read."""

    pairs: int
    """All pairs."""
    suspects: dict[str, int]
    """Pairs that each rule of cleaning drops."""
    words: tuple[float, float]
    """Words a sentence, on average, of source and target."""
    longest: int
    """Words of the longest side, of all but one pair of a thousand."""
    held_out: int
    """Pairs of the validation set, and of the test set."""

    @property
    def kept(self) -> int:
        """Training pairs that cleaning keeps."""
        return self.pairs - sum(self.suspects.values()) - 2 * self.held_out


def split_corpus(
    data: DataConfig, folder: Path, name: str, log: Callable[[str], None]
) -> CorpusFacts:
    """Write `train`, `valid` and `test` of the first training corpus, a file a language.

    Args:
        name: what errors call the corpus.

    Raises:
        DataError: there are too few pairs, or too few that can be held out.
    """
    log(f"reading the pairs, with {len(data.clean)} rules of cleaning")
    facts, candidates = _survey(data, name, log)
    if facts.pairs < FEWEST_PAIRS:
        what, advice = f"too few pairs to learn from: {facts.pairs}", "give more text"
        raise DataError("DATA-FEW", name, what, advice)
    wanted = 2 * min(MOST_HELD_OUT, facts.pairs // SMALLEST_SHARE)
    if len(candidates) < wanted:
        what = f"{len(candidates)} pairs occur once and pass the rules, and {wanted} are needed"
        advice = "run mt data report; give other text, or valid and test sets of your own"
        raise DataError("DATA-FEW", name, what, advice)
    places = candidates[np.arange(wanted) * len(candidates) // wanted]
    part = np.zeros(facts.pairs, np.int8)  # 0 train, 1 valid, 2 test
    part[places[::2]], part[places[1::2]] = 1, 2
    _write(data, part, folder)
    return facts._replace(held_out=wanted // 2)


def _survey(
    data: DataConfig, name: str, log: Callable[[str], None]
) -> tuple[CorpusFacts, NDArray[np.int64]]:
    """Read all pairs; return the facts, and the rows that may be held out."""
    rules = tuple(rule for rule in data.clean if not rule.needs_held_out)
    data = data.model_copy(update={"clean": rules})
    cleaners = cleaning.cleaners_for(data, [], log)
    hashes: dict[str, list[Any]] = {"source": [], "target": []}
    sound: list[Any] = []
    words: list[Any] = []
    suspects: dict[str, int] = {}
    for number, sides, _, measures in measure_chunks(data, cleaners):
        findings = cleaners[number].compare(measures.findings, *sides)
        for found in filter(None, findings):
            suspects[found.rule] = suspects.get(found.rule, 0) + 1
        sound.append(np.array([found is None for found in findings]))
        words.append(measures.words)
        for side, parts in hashes.items():
            parts.append(measures.hashes[side])
    if not sound:
        raise DataError("DATA-EMPTY", name, "there are no pairs in it", "name other files")
    lengths = np.concatenate(words, axis=1)
    once = np.concatenate(sound)
    for parts in hashes.values():
        _, inverse, counts = np.unique(
            np.concatenate(parts), return_inverse=True, return_counts=True
        )
        once &= counts[inverse] == 1
    source, target = lengths.mean(axis=1)
    facts = CorpusFacts(
        lengths.shape[1], suspects, (float(source), float(target)),
        int(np.quantile(lengths.max(axis=0), 0.999)), 0,
    )  # fmt: skip
    return facts, np.flatnonzero(once)


def _write(data: DataConfig, part: NDArray[np.int8], folder: Path) -> None:
    """Write each pair to the files of its part."""
    source = data.train[0]
    codes = source.direction.source, source.direction.target
    with ExitStack() as stack:
        streams = [
            [stack.enter_context(files.open_new(folder / f"{name}.{code}")) for code in codes]
            for name in NAMES
        ]
        for row, pair in enumerate(read_pairs(source)):
            for stream, line in zip(streams[part[row]], (pair.source, pair.target), strict=True):
                stream.write(f"{line}\n".encode())
