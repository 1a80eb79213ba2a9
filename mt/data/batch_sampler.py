"""Token-budget batches of like length: a pure plan of (seed, epoch, lengths, config).

An update is a group of micro-batches. Sentences are shuffled and cut into windows; those of a
window are cut into micro-batches of little padding, which are shuffled and dealt to updates of
`tokens` real target tokens. Nothing but (epoch, window, update) need be remembered to go on, and
the number of processes does not enter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mt.config.recipe import Recipe
from mt.config.schema import BatchingConfig
from mt.data.bucketing import (
    Lengths,
    PairIndices,
    Shape,
    balance_groups,
    bucket_by_length,
    pack_into_shapes,
)
from mt.data.corpus import EncodedPairs

_SAMPLING_STREAM = 0x5EED
"""Sets the generators of `temperature_sample` apart from those of windows."""


@dataclass(frozen=True)
class EpochPlan:
    """The batches of one epoch: a pure function of its fields, cut a window at a time.

    So a run can go on anywhere knowing no more than (epoch, window, update), at the cost of one
    window; the number of processes does not enter.
    """

    source_lengths: Lengths
    """[pairs] real source positions of each pair, end included."""
    target_lengths: Lengths
    """[pairs] real target positions of each pair, end included."""
    config: BatchingConfig
    micro_tokens: int
    """Padded slots of one forward pass."""
    seed: int
    number: int
    """Counted from 0."""
    shapes: tuple[Shape, ...] = ()
    """The shapes that batches may have, smallest first; none: any."""
    parts: tuple[int, ...] = ()
    """How many of the pairs are of each corpus, one after another."""
    temperature: float = 1.0
    """How evenly corpora are drawn from; at 1 each pair comes once. See `temperature_sample`."""

    @cached_property
    def windows(self) -> list[PairIndices]:
        """The rows of each window: all that are drawn, shuffled, in parts of one size."""
        pairs, lengths = len(self.target_lengths), self.target_lengths
        order = np.arange(pairs, dtype=np.uint32)
        if self.temperature != 1 and len(self.parts) > 1:
            order = temperature_sample(self.parts, self.temperature, self.seed, self.number)
            lengths = lengths[order]
        order = self._random().permutation(order)
        of_an_update = self.config.tokens / max(1.0, float(lengths.mean()))
        return np.array_split(order, max(1, round(pairs / (self.config.window * of_an_update))))

    def updates(self, window: int) -> list[list[PairIndices]]:
        """The micro-batches of each update of a window, each the rows [B] that it holds."""
        rows = self.windows[window].astype(np.int64)
        source, target = self.source_lengths[rows], self.target_lengths[rows]
        budget = self.config.tokens
        if self.shapes:
            micros = pack_into_shapes(self.shapes, source, target)
        else:
            micros = bucket_by_length(source, target, self.micro_tokens, budget)
        self._random(window).shuffle(micros)
        sizes = [int(target[micro].sum()) for micro in micros]
        groups = balance_groups(np.array(sizes), _num_updates(target, budget))
        return [[rows[micros[i]] for i in group] for group in groups]

    def __len__(self) -> int:
        """Updates of the epoch, known without cutting it."""
        return sum(
            _num_updates(self.target_lengths[rows], self.config.tokens) for rows in self.windows
        )

    def _random(self, *more: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.seed, self.number, *more]))


def temperature_sample(
    parts: Sequence[int], temperature: float, seed: int, number: int
) -> NDArray[np.uint32]:
    """The rows of an epoch in which small corpora come more often: as many as there are pairs.

    A corpus of n among N pairs is drawn from in proportion to (n/N)^(1/temperature) (Arivazhagan
    et al. 2019, section 4.2). Each of its pairs comes as often as any other, or once more; which
    do is drawn for each epoch from the seed and the number of the epoch alone.

    Args:
        parts: pairs of each corpus, one after another.
    """
    sizes = np.array(parts, np.float64)
    total = sum(parts)
    shares = (sizes / total) ** (1 / temperature) * (sizes > 0)
    wanted = np.floor(np.cumsum(shares / shares.sum()) * total + 0.5).astype(np.int64)
    rows, first = [], 0
    for corpus, (size, count) in enumerate(zip(parts, np.diff(wanted, prepend=0), strict=True)):
        if size:
            random = np.random.Generator(np.random.PCG64([seed, number, corpus, _SAMPLING_STREAM]))
            whole, rest = divmod(int(count), size)
            some = random.permutation(size)[:rest]
            rows += [np.tile(np.arange(size), whole) + first, np.sort(some) + first]
        first += size
    return np.concatenate(rows).astype(np.uint32)


def _num_updates(target: Lengths, tokens: int) -> int:
    """How many updates the pairs of a window make: never more than it has micro-batches."""
    return max(1, round(int(target.sum()) / max(tokens, int(target.max(initial=0)))))


def static_shapes(resolved: dict[str, Any]) -> tuple[Shape, ...]:
    """The shapes in `resolved.json`, smallest first; none: any shape."""
    return tuple((rows, source, target) for rows, source, target in resolved["shapes"])


def plan_epoch(
    recipe: Recipe, corpus: EncodedPairs, resolved: dict[str, Any], epoch: int,
    parts: tuple[int, ...] = (),
) -> EpochPlan:  # fmt: skip
    """The batches of an epoch; `parts` has the number of pairs of each training corpus."""
    return EpochPlan(
        corpus.source_lengths, corpus.target_lengths, recipe.batching, resolved["micro_tokens"],
        recipe.training.seed, epoch, static_shapes(resolved), parts, recipe.data.temperature,
    )  # fmt: skip
