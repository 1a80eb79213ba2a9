"""One step: the loss of a micro-batch, and the gradient of the mean over several."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import register_dataclass

from mt import distributed
from mt.contracts import Batch, Loss, Objective, Term
from mt.distributed import ALONE, Precision, World, autocast

register_dataclass(Term)  # so that a sharded module finds the tensors in what it returns


class TrainStep(nn.Module):
    """Model and objective in one module: what is averaged, compiled and shared out."""

    def __init__(self, model: nn.Module, objective: nn.Module, precision: Precision) -> None:
        super().__init__()
        self.model, self.objective, self.precision = model, objective, precision

    def forward(self, batch: Batch) -> Loss:
        """The loss of one micro-batch, matrix products in `precision`."""
        with autocast(batch.source.device, self.precision):
            loss: Loss = self.objective(batch)
        return loss


def backward(
    step: nn.Module, objective: Objective, batches: list[Batch], scaler: torch.amp.GradScaler,
    world: World = ALONE,
) -> Tensor:  # fmt: skip
    """Gradients of the mean loss over all micro-batches; this process's part of the mean, [].

    Each term is a sum, divided by its count over ALL micro-batches of all processes: how an
    update is cut into micro-batches cannot change its gradient.
    """
    step.train()
    counts: dict[str, Tensor] = {}
    for batch in batches:
        for name, count in objective.counts(batch).items():
            counts[name] = counts.get(name, 0) + count
    counts = distributed.total_counts(world, counts)
    mean = torch.zeros((), device=batches[0].source.device)
    for number, batch in enumerate(batches, start=1):
        with distributed.synchronised(step, last=number == len(batches)):
            terms = step(batch)
            part = sum(term.weight * term.total / counts[term.name].clamp(min=1) for term in terms)
            scaler.scale(part).backward()
        mean += cast(Tensor, part).detach()
    return mean
