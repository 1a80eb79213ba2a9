"""Token-budget batches of similar length: a pure plan of (seed, epoch, lengths, config).

Pairs are shuffled and cut into windows; those of a window are cut into micro-batches of little
padding, which are shuffled and grouped into updates of `tokens` real target tokens. A run resumes
from (epoch, window, update); the plan does not depend on the number of processes.
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
from mt.data import bucketing
from mt.data.bucketing import Lengths, PairIndices, Shape
from mt.data.corpus import EncodedPairs

_SAMPLING_STREAM = 0x5EED
"""Sets the generators of `temperature_sample` apart from those of windows."""


@dataclass(frozen=True)
class EpochPlan:
    """The batches of one epoch, planned a window at a time from the fields alone."""

    source_lengths: Lengths
    """[pairs] real source positions of each pair, end included."""
    target_lengths: Lengths
    """[pairs] real target positions of each pair, end included."""
    config: BatchingConfig
    micro_tokens: int
    """Padded tokens of one forward pass."""
    seed: int
    number: int
    """The epoch, from 0."""
    shapes: tuple[Shape, ...] = ()
    """The shapes that batches may have, smallest first; none: any."""
    parts: tuple[int, ...] = ()
    """Pairs of each corpus, one after another."""
    temperature: float = 1.0
    """At 1 each pair comes once; see `temperature_sample`."""

    @cached_property
    def windows(self) -> list[PairIndices]:
        """The rows of each window, shuffled."""
        pairs, lengths = len(self.target_lengths), self.target_lengths
        order = np.arange(pairs, dtype=np.uint32)
        if self.temperature != 1 and len(self.parts) > 1:
            order = temperature_sample(self.parts, self.temperature, self.seed, self.number)
            lengths = lengths[order]
        order = self._random().permutation(order)
        update_pairs = self.config.tokens / max(1.0, float(lengths.mean()))
        return np.array_split(order, max(1, round(pairs / (self.config.window * update_pairs))))

    def updates(self, window: int) -> list[list[PairIndices]]:
        """Return the micro-batches of each update of a window, each an array of rows [B]."""
        rows = self.windows[window].astype(np.int64)
        source, target = self.source_lengths[rows], self.target_lengths[rows]
        budget = self.config.tokens
        if self.shapes:
            micro_batches = bucketing.pack_into_shapes(self.shapes, source, target)
        else:
            micro_batches = bucketing.bucket_by_length(source, target, self.micro_tokens, budget)
        self._random(window).shuffle(micro_batches)
        sizes = [int(target[micro_batch].sum()) for micro_batch in micro_batches]
        groups = bucketing.balance_groups(np.array(sizes), _num_updates(target, budget))
        return [[rows[micro_batches[i]] for i in group] for group in groups]

    def __len__(self) -> int:
        """The number of updates of the epoch."""
        tokens = self.config.tokens
        return sum(_num_updates(self.target_lengths[rows], tokens) for rows in self.windows)

    def _random(self, *more: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.seed, self.number, *more]))


def temperature_sample(
    parts: Sequence[int], temperature: float, seed: int, number: int
) -> NDArray[np.uint32]:
    """Sample the rows of an epoch, as many as there are pairs; small corpora come more often.

    A corpus of n among N pairs is sampled in proportion to (n/N)^(1/temperature) (Arivazhagan et
    al. 2019, section 4.2). Each of its pairs comes equally often, or once more; which do depends
    on the seed and the epoch. `parts` are the pairs of each corpus, one after another.
    """
    sizes = np.array(parts, np.float64)
    total = sum(parts)
    shares = (sizes / total) ** (1 / temperature) * (sizes > 0)
    ends = np.floor(np.cumsum(shares / shares.sum()) * total + 0.5).astype(np.int64)
    rows, first = [], 0
    for corpus, (size, count) in enumerate(zip(parts, np.diff(ends, prepend=0), strict=True)):
        if size:
            random = np.random.Generator(np.random.PCG64([seed, number, corpus, _SAMPLING_STREAM]))
            whole, rest = divmod(int(count), size)
            some = random.permutation(size)[:rest]
            rows += [np.tile(np.arange(size), whole) + first, np.sort(some) + first]
        first += size
    return np.concatenate(rows).astype(np.uint32)


def _num_updates(target: Lengths, tokens: int) -> int:
    """Return the number of updates of a window: at most that of its micro-batches."""
    return max(1, round(int(target.sum()) / max(tokens, int(target.max(initial=0)))))


def static_shapes(resolved: dict[str, Any]) -> tuple[Shape, ...]:
    """Return the shapes in `resolved.json`, smallest first; none: any shape."""
    return tuple((rows, source, target) for rows, source, target in resolved["shapes"])


def plan_epoch(
    recipe: Recipe, corpus: EncodedPairs, resolved: dict[str, Any], epoch: int,
    parts: tuple[int, ...] = (),
) -> EpochPlan:  # fmt: skip
    """Plan the batches of an epoch; `parts` has the number of pairs of each training corpus."""
    return EpochPlan(
        corpus.source_lengths, corpus.target_lengths, recipe.batching, resolved["micro_tokens"],
        recipe.training.seed, epoch, static_shapes(resolved), parts, recipe.data.temperature,
    )  # fmt: skip
