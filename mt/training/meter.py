"""Throughput and memory between two reports."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from mt.interfaces import Batch
from mt.runtime import distributed, memory
from mt.runtime.distributed import World
from mt.runtime.host_copy import HostCopy
from mt.runtime.torch_private import num_compilations


class Meter:
    """Figures since the last report."""

    def __init__(self) -> None:
        self.since = time.perf_counter()
        self.clear()

    def clear(self) -> None:
        """Start over."""
        self.loss: list[Tensor] = []
        self.norm = torch.zeros(())
        self.tokens, self.padded_tokens, self.real, self.splits, self.wait = 0, 0, 0, 0, 0.0

    def add(
        self, loss: Tensor, norm: Tensor, tokens: int, real: int, batches: list[Batch], wait: float
    ) -> None:
        """Count an update of `tokens` real target and `real` source and target positions."""
        self.loss.append(loss)
        self.norm, self.tokens, self.wait = norm, self.tokens + tokens, self.wait + wait
        self.real += real
        self.padded_tokens += sum(batch.source.numel() + batch.labels.numel() for batch in batches)

    def start_reading(self, world: World) -> Callable[[], dict[str, float]]:
        """Return a function that reads the figures until now, and start over.

        Padding, waiting and memory are of this rank.
        """
        loss = distributed.all_reduce_sum(world, torch.stack(self.loss).mean())
        values = HostCopy(torch.stack((loss, self.norm.to(loss))))
        tokens, splits, wait = self.tokens, self.splits, self.wait
        padding = 1 - self.real / max(1, self.padded_tokens)
        self.clear()

        def read() -> dict[str, float]:
            loss, norm = values.read()  # which waits for the device
            now = time.perf_counter()
            seconds, self.since = max(now - self.since, 1e-9), now
            return {
                "loss": loss, "grad_norm": norm, "target_tokens": tokens,
                "target_tokens_per_second": tokens / seconds, "padding_fraction": padding,
                "data_wait_fraction": wait / seconds, "memory_splits": splits,
                "compilations": num_compilations(), "peak_memory_bytes": peak_memory(),
            }  # fmt: skip

        return read


def peak_memory() -> int:
    """Return the most bytes that the device has used; on a CPU, that this process has."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    return memory.peak_bytes()
