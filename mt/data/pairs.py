"""Raw sentence pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from mt.config.plugins import plugin
from mt.config.schema import SourceConfig


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
