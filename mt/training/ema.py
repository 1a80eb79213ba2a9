"""Exponential moving average of weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from mt.runtime.distributed import local_shard
from mt.runtime.torch_private import lerp_all


class MovingAverage:
    """The exponential moving average of a module's weights, as a module of its own.

    The decay of update n is at most (1 + n) / (10 + n), which soon forgets the random start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module, step: int, finite: Tensor) -> None:
        """Average in the weights after update `step`, counted from 1, where `finite` [] is true."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages = [local_shard(parameter) for parameter in self.module.parameters()]
        weights = [local_shard(parameter) for parameter in module.parameters()]
        weight = finite * (1 - decay)  # a tensor: whether it is 0 is known on the device only
        lerp_all(averages, weights, weight)
