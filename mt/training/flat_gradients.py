"""The gradients of a model in one buffer, which one message sums over all processes.

Without hooks in autograd, forward and backward can be a captured CUDA graph; the message goes
between it and the update of the weights.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from mt.runtime import distributed
from mt.runtime.distributed import World

ALIGNMENT = 16
"""Each gradient begins at a multiple of this many numbers: a cache line in fp32."""


class FlatGradients:
    """The `grad` of each trained parameter becomes a view of one buffer, and stays it.

    Clear gradients in place (`zero_grad(set_to_none=False)`): autograd then adds to the buffer.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        trained = [each for each in parameters if each.requires_grad]
        starts = [0]
        for each in trained:
            starts.append(starts[-1] + -(-each.numel() // ALIGNMENT) * ALIGNMENT)
        self.buffer = torch.zeros(starts[-1], dtype=trained[0].dtype, device=trained[0].device)
        for each, start in zip(trained, starts, strict=False):
            each.grad = self.buffer[start : start + each.numel()].view_as(each)

    def sum_over_ranks(self, world: World) -> None:
        """Replace the gradients by their sum over all processes."""
        distributed.sum_in_place(world, self.buffer)
