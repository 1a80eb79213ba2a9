"""One step: the loss of a micro-batch, the gradient of the mean over several, the update.

No value is read from a device, except when memory is exhausted: reading would make the
host wait for all work that is queued.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import cast

import torch
from torch import Tensor, nn
from torch.export import register_dataclass

from mt.errors import MachineError
from mt.interfaces import Batch, Loss, Objective, Term
from mt.runtime import distributed, memory, torch_private
from mt.runtime.device import Precision, autocast
from mt.runtime.distributed import SINGLE, World
from mt.training.flat_gradients import FlatGradients

register_dataclass(Term)  # so that a sharded module finds the tensors in what it returns


class ModelWithLoss(nn.Module):
    """Model and objective in one module: what is averaged, compiled and shared out."""

    def __init__(self, model: nn.Module, objective: nn.Module, precision: Precision) -> None:
        super().__init__()
        self.model, self.objective, self.precision = model, objective, precision

    def forward(self, batch: Batch) -> Loss:
        """The loss of one micro-batch, matrix products in `precision`."""
        with autocast(batch.source.device, self.precision):
            loss: Loss = self.objective(batch)
        return loss


# ------------------------------------------------------------------------------ gradients

MicroBatchRunner = Callable[[nn.Module, Batch, Mapping[str, Tensor], torch.amp.GradScaler], Tensor]
"""Adds the gradient of one micro-batch and returns its part of the mean loss, []."""


class OutOfMemory(Exception):
    """Memory was exhausted in the micro-batch of this number."""

    def __init__(self, number: int, message: str) -> None:
        self.number, self.message = number, message
        super().__init__(message)


def accumulate_micro_batch(
    module: nn.Module, batch: Batch, counts: Mapping[str, Tensor], scaler: torch.amp.GradScaler
) -> Tensor:
    """Add the gradient of a micro-batch; return its part of the mean loss, [].

    `counts` has the count of each term over the whole update.
    """
    terms: Loss = module(batch)
    parts = (term.weight * term.total / counts[term.name].clamp(min=1) for term in terms)
    part = cast(Tensor, sum(parts))
    scaler.scale(part).backward()
    return part.detach()


def accumulate_gradients(
    module: nn.Module, objective: Objective, batches: list[Batch], scaler: torch.amp.GradScaler,
    world: World = SINGLE, accumulate: MicroBatchRunner = accumulate_micro_batch,
    flat: FlatGradients | None = None,
) -> Tensor:  # fmt: skip
    """Compute the gradients of the mean loss; return this process's part of the mean, [].

    Each term is a sum, divided by its count over ALL micro-batches of all processes: how an
    update is cut into micro-batches cannot change its gradient. The gradients in `flat` are
    then summed over the processes; FSDP sums those of a sharded module itself.

    Raises:
        OutOfMemory: in one of the micro-batches; the gradients are then of no use.
    """
    module.train()
    counts: dict[str, Tensor] = {}
    for batch in batches:
        for name, count in objective.counts(batch).items():
            counts[name] = counts.get(name, 0) + count
    counts = distributed.all_reduce_counts(world, counts)
    mean = torch.zeros((), device=batches[0].source.device)
    for number, batch in enumerate(batches):
        distributed.sum_shards_in_pass(module, last=number + 1 == len(batches))
        try:
            mean += accumulate(module, batch, counts, scaler)
        except (MemoryError, RuntimeError) as error:
            if not memory.is_out_of_memory(error):
                raise
            message = memory.first_line(error)
            if world.size > 1:  # one of several processes cannot do an update again alone
                advice = "lower it, and train into another folder with --run"
                raise MachineError("OOM", "batching.micro_tokens", message, advice) from None
            raise OutOfMemory(number, message) from None
    if flat is not None:
        flat.sum_over_ranks(world)
    return mean


def compute_gradients(
    module: nn.Module, objective: Objective, batches: list[Batch], scaler: torch.amp.GradScaler,
    seed: int, world: World = SINGLE, accumulate: MicroBatchRunner = accumulate_micro_batch,
    flat: FlatGradients | None = None, keep_buffers: bool = False,
) -> tuple[Tensor, list[Batch]]:  # fmt: skip
    """Compute the gradients of an update; when memory is exhausted, cut that micro-batch in two.

    A pass that failed may have added a part of its gradient, so the whole update is done again
    from nothing, with the same seed. With `keep_buffers` gradients are cleared in place.

    Returns:
        The mean loss [], and the micro-batches that were cut.

    Raises:
        MachineError: one pair alone does not fit.
    """
    split: list[Batch] = []
    while True:
        torch.manual_seed(seed)
        try:
            loss = accumulate_gradients(
                module, objective, batches, scaler, world, accumulate, flat
            )  # fmt: skip
            return loss, split
        except OutOfMemory as error:
            failed, message = error.number, error.message
        # Out here the error, and with it the frames that hold the partial graph, is gone.
        module.zero_grad(set_to_none=not keep_buffers)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        batch = batches[failed]
        batches = [*batches[:failed], *split_batch(batch, message), *batches[failed + 1 :]]
        split.append(batch)


def split_batch(batch: Batch, message: str) -> list[Batch]:
    """Cut a micro-batch in two, each as wide as its longest pair; a MachineError for one pair."""
    real = (batch.target_lengths > 0).nonzero()[:, 0]  # rows that only fill a shape are left out
    if len(real) < 2:
        pair = f"{int(batch.source_lengths.max())} source and {int(batch.target_lengths.max())}"
        what = f"a single pair of {pair} target tokens does not fit ({message})"
        advice = "lower data.max_length or the model's sizes, or free memory on the machine"
        raise MachineError("OOM", "batching.micro_tokens", what, advice)
    return [_select_rows(batch, rows) for rows in real.tensor_split(2)]


def _select_rows(batch: Batch, rows: Tensor) -> Batch:
    """Select rows of a batch and cut off what is padding in all of them."""
    part = Batch(**{f.name: getattr(batch, f.name)[rows] for f in fields(batch)})
    width, height = int(part.source_lengths.max()), int(part.target_lengths.max())
    return Batch(
        part.source[:, :width], part.target[:, : height + 1],
        part.source_lengths, part.target_lengths, part.rows,
    )  # fmt: skip


# ------------------------------------------------------------------------------ the update


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every group, times the `factor` of the group where it has one."""
    filled: set[int] = set()
    for group in optimizer.param_groups:
        own = rate * group.get("factor", 1.0)
        if not isinstance(group["lr"], Tensor):
            group["lr"] = own
            continue
        # Torch gives all groups of an optimizer one tensor, which can hold one rate only.
        if id(group["lr"]) in filled:
            group["lr"] = group["lr"].clone()
        filled.add(id(group["lr"]))
        group["lr"].fill_(own)  # a kernel reads it there, so that nothing is compiled again


def set_rate_factors(
    optimizer: torch.optim.Optimizer, named: Mapping[str, Tensor], factors: Mapping[str, float]
) -> None:
    """Split the groups of a new optimizer so that each parameter has its own rate factor."""
    factor_of = {parameter: factors[name] for name, parameter in named.items()}
    groups = []
    for group in optimizer.param_groups:
        parts: dict[float, list[Tensor]] = {}
        for parameter in group["params"]:
            parts.setdefault(factor_of.get(parameter, 1.0), []).append(parameter)
        for factor, parameters in parts.items():
            factor *= group.get("factor", 1.0)
            groups.append({**group, "params": parameters, "factor": factor})
    optimizer.param_groups[:] = groups


def clipped_step(
    optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor], clip: float | None
) -> tuple[Tensor, Tensor]:
    """Update the weights with gradients of a norm of at most `clip` (Pascanu et al. 2013).

    What is not finite changes nothing. Torch's fused optimizers divide the gradients themselves.

    Returns:
        The norm of the gradients [] and whether it is finite [].
    """
    trained = [each for each in parameters if each.grad is not None]
    gradients = [cast(Tensor, each.grad) for each in trained]
    norm = distributed.full_tensor(nn.utils.get_total_norm(gradients, foreach=True))
    scale = None
    if clip and torch_private.skips_by_found_inf(optimizer):
        scale = (norm / clip).clamp(min=1)
    elif clip:
        nn.utils.clip_grads_with_norm_(trained, clip, norm, foreach=True)
    step_if_finite(optimizer, norm.isfinite(), scale)
    return norm, norm.isfinite()


def step_if_finite(
    optimizer: torch.optim.Optimizer, finite: Tensor, scale: Tensor | None = None
) -> None:
    """Update the weights if `finite` [] is true; else leave them and all state as they are.

    The device decides. Torch's fused optimizers skip a step by `found_inf`, and divide gradients
    by `scale` [], as for torch.amp.GradScaler; what other optimizers changed is put back.
    """
    if torch_private.skips_by_found_inf(optimizer):
        with torch_private.scaled_step(optimizer, 1.0 - finite.float(), scale):
            optimizer.step()
    elif finite.device.type == "cpu" or not optimizer.state:
        # There is nothing to wait for on a CPU; nor, before the first step, any state to put back.
        if bool(finite):
            optimizer.step()
    else:
        step_or_restore(optimizer, finite)


@torch.no_grad()
def step_or_restore(optimizer: torch.optim.Optimizer, finite: Tensor) -> None:
    """Step, then restore a copy of weights and state unless `finite`."""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    state = [v for p in weights for v in optimizer.state[p].values() if isinstance(v, Tensor)]
    tensors = [*weights, *state]
    before = [tensor.clone() for tensor in tensors]
    optimizer.step()
    for now, then in zip(tensors, before, strict=True):
        now.copy_(torch.where(finite.to(now.device), now, then))
