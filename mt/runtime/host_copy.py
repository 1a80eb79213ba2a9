"""Values of a device on their way to the host."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class HostCopy:
    """A copy of a tensor whose `read` waits for the work before it only, not for the queue.

    A device goes on with what is queued meanwhile, where `tensor.tolist()` would drain it.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.event: Any = None
        self.values = tensor
        if tensor.device.type == "cuda":  # from pageable memory the copy itself would wait
            self.values = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self.values.copy_(tensor, non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record()

    def read(self) -> list[Any]:
        """Return the values."""
        if self.event is not None:
            self.event.synchronize()
        values: list[Any] = self.values.tolist()
        return values
