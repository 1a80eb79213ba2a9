"""Padded tensors from encoded sentence pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mt.data.bucketing import PairIndices, Shape, smallest_shape
from mt.interfaces import Batch
from mt.special_tokens import BEGIN, END, PAD

if TYPE_CHECKING:
    import torch

    from mt.data.corpus import EncodedPairs


def collate_pairs(corpus: EncodedPairs, rows: PairIndices, shapes: Sequence[Shape] = ()) -> Batch:
    """Collate the pairs at `rows` as padded CPU tensors, of one of the shapes if there are any.

    Without rows the batch is only padding, whose loss and gradient are zero: with it a rank
    without pairs takes part in an update.
    """
    if not len(rows):
        return to_batch([], [], rows, shapes[0] if shapes else (1, 1, 1))
    source = [corpus.source(int(row)) for row in rows]  # each [S], ending in </s>
    target = [corpus.target(int(row)) for row in rows]  # each [T], ending in </s>
    if not shapes:
        return to_batch(source, target, rows)
    size = len(rows), max(map(len, source)), max(map(len, target))
    return to_batch(source, target, rows, smallest_shape(shapes, *size))


def to_batch(
    source: Sequence[NDArray[np.integer]], target: Sequence[NDArray[np.integer]], rows: PairIndices,
    shape: Shape | None = None,
) -> Batch:  # fmt: skip
    """Make a batch of encoded pairs, each side ending in `</s>`.

    Rows that only fill a shape have length 0, row -1, no label, and one source token, since
    attention to no token is NaN.
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
        source=torch.from_numpy(pad_rows([*source, *filler[0]], shape[1] if shape else 0)),
        target=torch.from_numpy(pad_rows([*begin, *filler[1]], shape[2] + 1 if shape else 0)),
        source_lengths=torch.from_numpy(lengths[0]),
        target_lengths=torch.from_numpy(lengths[1]),
        rows=torch.from_numpy(numbers),
    )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Copy a batch to a device."""
    if device.type == "cpu":
        return batch
    tensors = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return Batch(**{k: t.pin_memory().to(device, non_blocking=True) for k, t in tensors.items()})


def pad_rows(sequences: Sequence[NDArray[np.integer]], width: int = 0) -> NDArray[np.int64]:
    """Pad sequences to the right to [B, longest], at least `width` wide."""
    width = max([width, *map(len, sequences)])
    padded = np.full((len(sequences), width), PAD, dtype=np.int64)
    for row, ids in zip(padded, sequences, strict=True):
        row[: len(ids)] = ids
    return padded
