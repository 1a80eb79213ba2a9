"""Token-budget batches of like length: a pure plan of (seed, epoch, lengths, config).

An update is a group of micro-batches. Sentences are shuffled and cut into windows; those of a
window are cut into micro-batches of little padding, which are shuffled and dealt to updates of
`tokens` real target tokens. Nothing but (epoch, window, update) need be remembered to go on, and
the number of processes does not enter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from mt.config.yaml_reader import Section
from mt.data.bucketing import Lengths, Rows, Shape, cut, deal, fill, shape_of
from mt.interfaces import BEGIN, END, PAD, Batch

if TYPE_CHECKING:
    import torch

    from mt.data.corpus import EncodedPairs


_DRAWN = 0x5EED
"""Sets the generators of `drawn` apart from those of windows."""


class Config(Section):
    """How sentence pairs are put into batches."""

    tokens: int = Field(4096, ge=1)
    """Real target tokens (end included, padding not) of one update, over all micro-batches."""
    micro_tokens: Literal["auto"] | int = "auto"
    """Padded slots, source and target together, of one forward pass."""
    window: int = Field(100, ge=1)
    """Updates' worth of sentences that are sorted by length together."""

    @field_validator("micro_tokens")
    @classmethod
    def _some_tokens(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 16:
            raise ValueError(f"should be auto or at least 16, got {value}")
        return value


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch: a pure function of its fields, cut a window at a time.

    So a run can go on anywhere knowing no more than (epoch, window, update), at the cost of one
    window; the number of processes does not enter.
    """

    source_lengths: Lengths
    """[pairs] real source positions of each pair, end included."""
    target_lengths: Lengths
    """[pairs] real target positions of each pair, end included."""
    config: Config
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
    """How evenly corpora are drawn from; at 1 each pair comes once. See `drawn`."""

    @cached_property
    def windows(self) -> list[Rows]:
        """The rows of each window: all that are drawn, shuffled, in parts of one size."""
        pairs, lengths = len(self.target_lengths), self.target_lengths
        order = np.arange(pairs, dtype=np.uint32)
        if self.temperature != 1 and len(self.parts) > 1:
            order = drawn(self.parts, self.temperature, self.seed, self.number)
            lengths = lengths[order]
        order = self._random().permutation(order)
        of_an_update = self.config.tokens / max(1.0, float(lengths.mean()))
        return np.array_split(order, max(1, round(pairs / (self.config.window * of_an_update))))

    def updates(self, window: int) -> list[list[Rows]]:
        """The micro-batches of each update of a window, each the rows [B] that it holds."""
        rows = self.windows[window].astype(np.int64)
        source, target = self.source_lengths[rows], self.target_lengths[rows]
        budget = self.config.tokens
        if self.shapes:
            micros = fill(self.shapes, source, target)
        else:
            micros = cut(source, target, self.micro_tokens, budget)
        self._random(window).shuffle(micros)
        sizes = [int(target[micro].sum()) for micro in micros]
        groups = deal(np.array(sizes), _count(target, budget))
        return [[rows[micros[i]] for i in group] for group in groups]

    def __len__(self) -> int:
        """Updates of the epoch, known without cutting it."""
        return sum(_count(self.target_lengths[rows], self.config.tokens) for rows in self.windows)

    def _random(self, *more: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.seed, self.number, *more]))


def drawn(parts: Sequence[int], temperature: float, seed: int, number: int) -> NDArray[np.uint32]:
    """The rows of an epoch in which small corpora come more often: as many as there are pairs.

    A corpus of n among N pairs is drawn from in proportion to (n/N)^(1/temperature) (Arivazhagan
    et al. 2019, section 4.2). Each of its pairs comes as often as any other, or once more; which
    do is drawn anew in each epoch, from nothing but the seed and the epoch's number.

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
            random = np.random.Generator(np.random.PCG64([seed, number, corpus, _DRAWN]))
            whole, rest = divmod(int(count), size)
            some = random.permutation(size)[:rest]
            rows += [np.tile(np.arange(size), whole) + first, np.sort(some) + first]
        first += size
    return np.concatenate(rows).astype(np.uint32)


def _count(target: Lengths, tokens: int) -> int:
    """How many updates the pairs of a window make: never more than it has micro-batches."""
    return max(1, round(int(target.sum()) / max(tokens, int(target.max(initial=0)))))


def collate(corpus: EncodedPairs, rows: Rows, shapes: Sequence[Shape] = ()) -> Batch:
    """The pairs at `rows` as padded tensors on the CPU, of one of the shapes if there are any.

    Without rows, filling only, whose loss and gradient are zero: with it a process that has
    nothing to do takes part in what all must do.
    """
    if not len(rows):
        return batch_of([], [], rows, shapes[0] if shapes else (1, 1, 1))
    source = [corpus.source(int(row)) for row in rows]  # each [S], ending in </s>
    target = [corpus.target(int(row)) for row in rows]  # each [T], ending in </s>
    if not shapes:
        return batch_of(source, target, rows)
    held = len(rows), max(map(len, source)), max(map(len, target))
    return batch_of(source, target, rows, shape_of(shapes, *held))


def batch_of(
    source: Sequence[NDArray[np.integer]], target: Sequence[NDArray[np.integer]], rows: Rows,
    shape: Shape | None = None,
) -> Batch:  # fmt: skip
    """A batch of encoded pairs, each side ending in `</s>`.

    Rows that only fill a shape have lengths 0 and row -1. They hold no label, so they count
    nothing, and one source token, since attention to nothing at all is not a number.
    """
    import torch

    begin = [np.concatenate(([BEGIN], ids)) for ids in target]
    filler = [
        [np.array([token])] * (shape[0] - len(source) if shape else 0) for token in (END, BEGIN)
    ]
    lengths = np.zeros((2, len(source) + len(filler[0])), np.int64)
    lengths[:, : len(source)] = [[len(ids) for ids in side] for side in (source, target)]
    numbers = np.full(lengths.shape[1], -1, np.int64)
    numbers[: len(source)] = rows
    return Batch(
        source=torch.from_numpy(pad([*source, *filler[0]], shape[1] if shape else 0)),
        target=torch.from_numpy(pad([*begin, *filler[1]], shape[2] + 1 if shape else 0)),
        source_lengths=torch.from_numpy(lengths[0]),
        target_lengths=torch.from_numpy(lengths[1]),
        rows=torch.from_numpy(numbers),
    )


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device."""
    if device.type == "cpu":
        return batch
    tensors = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return Batch(**{k: t.pin_memory().to(device, non_blocking=True) for k, t in tensors.items()})


def pad(sequences: Sequence[NDArray[np.integer]], width: int = 0) -> NDArray[np.int64]:
    """[B, longest] with id 0 to the right; at least `width` wide."""
    width = max([width, *map(len, sequences)])
    padded = np.full((len(sequences), width), PAD, dtype=np.int64)
    for row, ids in zip(padded, sequences, strict=True):
        row[: len(ids)] = ids
    return padded
