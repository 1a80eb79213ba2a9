"""Token-budget batches of like length: a pure plan of (seed, epoch, lengths, config).

An update is a group of micro-batches. Sentences are shuffled, cut into windows, sorted by
length within a window and cut into micro-batches of little padding; the micro-batches of a
window are shuffled and dealt to updates of `tokens` real target tokens. Nothing but (epoch,
update) need be remembered to go on, and the number of processes does not enter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from mt.config import Section
from mt.contracts import BEGIN, END, PAD, Batch

if TYPE_CHECKING:
    import torch

    from mt.corpus import Corpus

Rows = NDArray[np.int64]


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
class Plan:
    """The micro-batches of one epoch, grouped into updates."""

    updates: list[list[Rows]]
    """For each update its micro-batches, each the rows [B] of the corpus that it holds."""


def plan(
    source_lengths: NDArray[np.integer], target_lengths: NDArray[np.integer],
    config: Config, micro_tokens: int, seed: int, epoch: int,
) -> Plan:  # fmt: skip
    """The plan of an epoch.

    Args:
        source_lengths, target_lengths: [pairs] real positions of each pair, end included.
        config: the token budget of an update.
        micro_tokens: padded slots of one forward pass.
        seed: the run's seed.
        epoch: counted from 0.
    """
    generator = np.random.Generator(np.random.PCG64([seed, epoch]))
    order = generator.permutation(len(source_lengths))
    source, target = np.asarray(source_lengths), np.asarray(target_lengths)
    mean = max(1.0, float(target.mean()))
    window = max(1, round(config.window * config.tokens / mean))
    micros: list[Rows] = []
    for start in range(0, len(order), window):
        rows = order[start : start + window]
        rows = rows[np.lexsort((source[rows], target[rows]))]
        cut = micro_batches(rows, source[rows], target[rows], micro_tokens, config.tokens)
        micros += [cut[i] for i in generator.permutation(len(cut))]
    return Plan(_updates(micros, target, config.tokens))


def micro_batches(rows: Rows, source: Rows, target: Rows, slots: int, tokens: int) -> list[Rows]:
    """Cut sorted rows where the next one would not fit; one that fits nowhere stands alone."""
    cuts, widest_source, widest_target, real, first = [0], 0, 0, 0, 0
    for i, (s, t) in enumerate(zip(source.tolist(), target.tolist(), strict=True)):
        wide_s, wide_t = max(widest_source, s), max(widest_target, t)
        full = (wide_s + wide_t) * (i - first + 1) > slots or real + t > tokens
        if full and i > first:
            cuts.append(i)
            first, wide_s, wide_t, real = i, s, t, 0
        widest_source, widest_target, real = wide_s, wide_t, real + t
    return [rows[a:b] for a, b in zip(cuts, [*cuts[1:], len(rows)], strict=True) if b > a]


def _updates(micros: list[Rows], target: Rows, tokens: int) -> list[list[Rows]]:
    """Deal micro-batches to updates, each closed where it is nearest to `tokens`."""
    updates: list[list[Rows]] = []
    group: list[Rows] = []
    filled = 0
    for micro in micros:
        size = int(target[micro].sum())
        if group and abs(filled - tokens) <= abs(filled + size - tokens):
            updates.append(group)
            group, filled = [], 0
        group.append(micro)
        filled += size
    return [*updates, group] if group else updates


def collate(corpus: Corpus, rows: Rows) -> Batch:
    """The pairs at `rows` as padded tensors on the CPU.

    Without rows, a pair of which nothing is asked, whose loss and gradient are zero: with it a
    process that has nothing to do takes part in what all must do.
    """
    if not len(rows):
        nothing = batch_of([np.array([END])], [np.array([PAD])], np.array([0]))
        return replace(nothing, target_lengths=nothing.target_lengths * 0)
    source = [corpus.source(int(row)) for row in rows]  # each [S], ending in </s>
    target = [corpus.target(int(row)) for row in rows]  # each [T], ending in </s>
    return batch_of(source, target, rows)


def batch_of(
    source: Sequence[NDArray[np.integer]], target: Sequence[NDArray[np.integer]], rows: Rows
) -> Batch:
    """A batch of encoded pairs, each side ending in `</s>`."""
    import torch

    begin = [np.concatenate(([BEGIN], ids)) for ids in target]
    return Batch(
        source=torch.from_numpy(pad(source)),
        target=torch.from_numpy(pad(begin)),
        source_lengths=torch.tensor([len(ids) for ids in source]),
        target_lengths=torch.tensor([len(ids) for ids in target]),
        rows=torch.from_numpy(np.asarray(rows, dtype=np.int64)),
    )


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device."""
    if device.type == "cpu":
        return batch
    tensors = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return Batch(**{k: t.pin_memory().to(device, non_blocking=True) for k, t in tensors.items()})


def pad(sequences: Sequence[NDArray[np.integer]]) -> NDArray[np.int64]:
    """[B, longest] with id 0 to the right."""
    width = max((len(ids) for ids in sequences), default=0)
    padded = np.full((len(sequences), width), PAD, dtype=np.int64)
    for row, ids in zip(padded, sequences, strict=True):
        row[: len(ids)] = ids
    return padded
