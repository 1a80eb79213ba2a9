"""The encoded corpus on the device: batches are gathered there. Its plain twin is `collate`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mt.data.bucketing import Shape, smallest_shape
from mt.data.corpus import EncodedPairs
from mt.interfaces import Batch
from mt.special_tokens import BEGIN, END, PAD

MAX_MEMORY_SHARE = 0.1
"""Share of the device's free memory that a corpus may take."""


class GpuCorpus:
    """A copy of a corpus on a device."""

    def __init__(self, corpus: EncodedPairs, device: torch.device) -> None:
        self.corpus, self.device = corpus, device
        self.source = _Side(*corpus.arrays("source"), device)
        self.target = _Side(*corpus.arrays("target"), device)

    def collate(self, rows: NDArray[np.int64], shapes: Sequence[Shape] = ()) -> Batch:
        """Gather the pairs at `rows` [B] as `collate_pairs` does."""
        sides = self.corpus.source_lengths[rows], self.corpus.target_lengths[rows]
        size = len(rows), *(int(side.max()) for side in sides)  # on the host: no device sync
        height, width_source, width_target = smallest_shape(shapes, *size) if shapes else size
        numbers = np.full(height, -1, dtype=np.int64)
        numbers[: len(rows)] = rows
        at = torch.from_numpy(numbers)
        if self.device.type == "cuda":
            at = at.pin_memory().to(self.device, non_blocking=True)
        source, source_lengths = self.source.gather(at, width_source)
        source[:, 0].masked_fill_(at < 0, END)  # attention to no token is NaN
        target, target_lengths = self.target.gather(at, width_target)
        begin = torch.full_like(target[:, :1], BEGIN)
        return Batch(source, torch.cat((begin, target), 1), source_lengths, target_lengths, at)


class _Side:
    """One side: its ids, int32, and offsets."""

    def __init__(
        self, tokens: NDArray[np.unsignedinteger], offsets: NDArray[np.int64], device: torch.device
    ) -> None:
        self.tokens = torch.from_numpy(tokens.astype(np.int32)).to(device)
        self.offsets = torch.from_numpy(offsets.astype(np.int64)).to(device)

    def gather(self, rows: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Ids [B, width], padded with 0 to the right, and lengths [B], of the sentences `rows`."""
        real = rows.clamp(min=0)
        starts = self.offsets[real]
        lengths = torch.where(rows >= 0, self.offsets[real + 1] - starts, 0)
        position = torch.arange(width, device=rows.device)
        inside = position < lengths[:, None]  # [B, width]
        at = (starts[:, None] + position).clamp_(max=len(self.tokens) - 1)
        return torch.where(inside, self.tokens[at].long(), PAD), lengths


def fits_on_device(corpus: EncodedPairs, device: torch.device) -> bool:
    """Whether a corpus takes at most MAX_MEMORY_SHARE of the free memory of a CUDA device."""
    if device.type != "cuda":
        return False
    tokens = sum(len(corpus.arrays(side)[0]) for side in ("source", "target"))
    needed = 4 * tokens + 2 * 8 * (len(corpus) + 1)
    return needed <= MAX_MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]
