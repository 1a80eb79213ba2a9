"""A data source: words to recall over a distance. `kind: claims.recall` in a recipe finds it.

A source sentence has key words, and the same number of filler words before and after them: the
distance. The target is the key words alone. The fillers are noise, so that a network that reads
word by word, from either end, must remember the key words across all of them. With `keys: all` a
sentence is key words only, as many as the distance, and the target is a copy: each word must be
remembered as far, and there are more of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from random import Random
from typing import Literal

from pydantic import Field

from mt.config.schema import SourceConfig
from mt.data.pairs import Pair, Pairs


class Config(SourceConfig):
    """How many sentences, how far, how much to recall."""

    kind: str = "claims.recall"
    size: int = Field(10_000, ge=1)
    """Pairs."""
    distances: tuple[int, ...] = Field((2, 4, 8), strict=False)
    """Filler words on either side, one of these for each sentence, in turn."""
    keys: int | Literal["all"] = 4
    """Words to recall."""
    words: int = Field(24, ge=2)
    """How many different key words there are, and how many different fillers."""
    seed: int = Field(1, ge=0)
    """Another seed gives other sentences."""


def read(config: Config) -> Iterable[Pair]:
    """Return the pairs."""
    return Pairs(partial(_pairs, config))


def _pairs(config: Config) -> Iterator[Pair]:
    draw = Random(config.seed)
    source, target = config.direction.source, config.direction.target
    for number in range(config.size):
        distance = config.distances[number % len(config.distances)]
        count, noise = (distance, 0) if config.keys == "all" else (config.keys, distance)
        keys = [f"k{draw.randrange(config.words)}" for _ in range(count)]
        before, after = (
            [f"f{draw.randrange(config.words)}" for _ in range(noise)] for _ in range(2)
        )
        text = " ".join([*before, *keys, *after])
        yield Pair(text, " ".join(keys), source, target, f"recall:{number + 1}")
