"""Raw sentence pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from mt.config.plugins import plugin
from mt.config.schema import Languages, SourceConfig
from mt.errors import DataError


@dataclass(frozen=True, slots=True)
class Pair:
    """One raw sentence pair; one side is None in monolingual data."""

    source: str | None
    target: str | None
    source_language: str
    target_language: str
    origin: str
    """`corpus:line`, lines counted from 1."""
    weight: float = 1.0
    """Factor of its loss."""


@dataclass(frozen=True)
class Pairs:
    """Pairs that can be iterated several times."""

    begin: Callable[[], Iterator[Pair]]

    def __iter__(self) -> Iterator[Pair]:
        """Iterate from the first pair."""
        return self.begin()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Raw pairs of a stream, and the position after them."""

    source: list[str | None]
    target: list[str | None]
    after: dict[str, Any]
    """The position, as JSON, at which a stream yields what follows."""
    corpus: int = 0
    """The index of its corpus in `data.train`; set by the reader of several corpora."""


def read_pairs(config: SourceConfig) -> Iterable[Pair]:
    """Return the raw pairs of a source; they can be iterated several times."""
    pairs: Iterable[Pair] = plugin("sources", config.kind).read(config)
    if config.only is None:
        return pairs
    unused: dict[str, Any] = {unused_side(config.only): None}
    return Pairs(lambda: (replace(pair, **unused) for pair in pairs))


def drop_unused_side(chunk: Chunk, config: SourceConfig) -> Chunk:
    """Drop the other side of a chunk of a corpus with `only`."""
    if config.only is None:
        return chunk
    unused: dict[str, Any] = {unused_side(config.only): [None] * len(chunk.source)}
    return replace(chunk, **unused)


def unused_side(only: str) -> str:
    """Return the side that `only` does not read."""
    return "target" if only == "source" else "source"


def pair_lines(
    source: Iterable[str], target: Iterable[str], direction: Languages, name: str, where: str
) -> Iterator[Pair]:
    """Pair line n of one side with line n of the other; `name` begins the origin of a pair.

    Raises:
        DataError: at the end: the sides have different numbers of lines; names both, and `where`.
    """
    sides = iter(source), iter(target)
    for number, (a, b) in enumerate(zip_longest(*sides), start=1):
        if a is None or b is None:
            rest = number + sum(1 for _ in sides[a is None])
            counts = (number - 1, rest) if a is None else (rest, number - 1)
            what = f"{counts[0]} lines against {counts[1]}"
            advice = "line n of one must translate line n of the other; mend the files"
            raise DataError("DATA-LINES", where, what, advice)
        yield Pair(a, b, direction.source, direction.target, f"{name}:{number}")


def single_lines(
    lines: Iterable[str], side: str, direction: Languages, name: str
) -> Iterator[Pair]:
    """Make monolingual pairs of the lines of one side."""
    for number, line in enumerate(lines, start=1):
        source, target = (line, None) if side == "source" else (None, line)
        yield Pair(source, target, direction.source, direction.target, f"{name}:{number}")
