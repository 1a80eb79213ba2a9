"""Muon (Jordan et al. 2024): orthogonal updates for hidden matrices; AdamW for all else."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from mt.config.schema import OptimizerConfig
from mt.config.section import MAX_FACTOR

Beta = Annotated[float, Field(ge=0, lt=1)]


class Config(OptimizerConfig):
    """Muon for hidden matrices, AdamW for embeddings, output, biases and norms.

    Updates are scaled to the size of AdamW's (Liu et al. 2025, arXiv:2502.16982), so that a rate
    that suits AdamW is a fair first guess.
    """

    kind: str = "muon"
    momentum: Beta = 0.95
    """Decay of the gradient's running mean."""
    weight_decay: float = Field(0.0, ge=0, le=100)
    """Decoupled decay of hidden matrices."""
    adamw_factor: float = Field(1.0, gt=0, le=MAX_FACTOR)
    """AdamW's rate, as a multiple of `learning_rate`."""
    betas: tuple[Beta, Beta] = Field((0.9, 0.98), strict=False)
    """Decay of AdamW's moments."""
    epsilon: float = Field(1e-9, gt=0, le=1)
    """Added to the root of AdamW's second moment."""


class Muon(torch.optim.Optimizer):
    """Both as one optimizer: groups with a momentum are Muon's, the others AdamW's.

    `matrices` are hidden matrices [A, B], each with the number of matrices stacked in it; AdamW
    updates `others`.
    """

    def __init__(
        self, matrices: list[tuple[Tensor, int]], others: list[Tensor], config: Config
    ) -> None:
        self.parts = dict(matrices)
        self.adamw = torch.optim.AdamW(
            others or [torch.zeros(0)], lr=config.learning_rate * config.adamw_factor,
            betas=config.betas, eps=config.epsilon, weight_decay=0.0, fused=True,
        )  # fmt: skip
        orthogonal = {
            "params": [parameter for parameter, _ in matrices], "lr": config.learning_rate,
            "momentum": config.momentum, "weight_decay": config.weight_decay,
        }  # fmt: skip
        (rest,) = self.adamw.param_groups
        rest["factor"] = config.adamw_factor
        super().__init__([orthogonal, rest], {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        rest = []
        for group in self.param_groups:  # of each kind there are several where layers have rates
            if "momentum" in group:
                self._step_muon(group)
            else:
                rest.append(group)
        self.adamw.param_groups, self.adamw.state = rest, self.state
        self.adamw.step()

    def _step_muon(self, group: dict[str, Any]) -> None:
        rate, momentum = group["lr"], group["momentum"]
        of_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(parameter.grad, 1 - momentum)
            update = parameter.grad.lerp(state["momentum"], momentum).bfloat16()  # Nesterov's
            parts = self.parts[parameter]
            for weight, change in zip(parameter.chunk(parts), update.chunk(parts), strict=True):
                of_shape[weight.shape].append((weight, change))
        for shape, pairs in of_shape.items():
            changes = orthogonalise(torch.stack([change for _, change in pairs]))
            for (weight, _), change in zip(pairs, changes, strict=True):
                weight.mul_(1 - rate * group["weight_decay"])
                weight.add_(change, alpha=-rate * 0.2 * math.sqrt(max(shape)))


def orthogonalise(matrices: Tensor) -> Tensor:
    """Move the singular values of matrices [N, A, B] in bf16 to about one, by Newton-Schulz.

    Jordan et al. 2024: five steps of a polynomial of degree five, all matrices in one product.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    is_tall = matrices.size(1) > matrices.size(2)
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def build(config: Config, named_parameters: Iterable[tuple[str, Tensor]]) -> Muon:
    """Build the optimizer."""
    matrices: list[tuple[Tensor, int]] = []
    others: list[Tensor] = []
    excluded = ("embedding", "projection", "positions")
    for name, parameter in named_parameters:
        if parameter.ndim == 2 and not any(word in name for word in excluded):
            matrices.append((parameter, count_stacked(name)))
        else:
            others.append(parameter)
    return Muon(matrices, others, config)


def count_stacked(name: str) -> int:
    """Count the matrices that a parameter has one below the other: two in `key_value.weight`."""
    module = name.rpartition(".")[0].rpartition(".")[2]
    return max(1, len({"query", "key", "value"} & set(module.split("_"))))
