"""Sentence pairs as they are read, before any id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from mt.config.plugins import plugin
from mt.config.schema import SourceConfig


def drop_unused_side(pairs: Iterable[Pair], config: SourceConfig) -> Iterable[Pair]:
    """The pairs of a corpus, of a monolingual one without the side that it does not use."""
    if config.only is None:
        return pairs
    nothing: dict[str, Any] = {"target" if config.only == "source" else "source": None}
    return Pairs(lambda: (replace(pair, **nothing) for pair in pairs))


def drop_unused_side_of_chunk(chunk: Chunk, config: SourceConfig) -> Chunk:
    """`drop_unused_side` of a chunk of a stream."""
    if config.only is None:
        return chunk
    nothing: list[str | None] = [None] * len(chunk.source)
    if config.only == "source":
        return replace(chunk, target=nothing)
    return replace(chunk, source=nothing)


def read_pairs(config: SourceConfig) -> Iterable[Pair]:
    """The raw pairs of a source; can be iterated again."""
    pairs: Iterable[Pair] = plugin("sources", config.kind).read(config)
    return drop_unused_side(pairs, config)


@dataclass(frozen=True, slots=True)
class Pair:
    """One sentence pair as it was read, raw; one side is None in monolingual data."""

    source: str | None
    target: str | None
    source_language: str
    target_language: str
    origin: str
    """Where it came from, `corpus:line`, lines counted from 1."""
    weight: float = 1.0
    """How much its loss counts."""


@dataclass(frozen=True)
class Pairs:
    """Pairs that can be read again: each iteration begins anew."""

    begin: Callable[[], Iterator[Pair]]

    def __iter__(self) -> Iterator[Pair]:
        """The pairs, from the first."""
        return self.begin()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some pairs of a stream, raw, and where to read on after them."""

    source: list[str | None]
    target: list[str | None]
    after: dict[str, Any]
    """The position, as JSON: whoever streams from it gets what follows."""
    corpus: int = 0
    """The number of its corpus in `data.train`; whoever reads several fills it in."""
