"""Muon (Jordan et al. 2024): orthogonal updates for hidden matrices; AdamW for all else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from mt.config.schema import OptimizerConfig
from mt.config.section import MAX_FACTOR
from mt.runtime.torch_private import muon

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
        weights, gradients, means = [], [], []
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            parts = self.parts[parameter]
            weights += parameter.chunk(parts)
            gradients += parameter.grad.chunk(parts)
            means += state["momentum"].chunk(parts)
        muon(
            weights, gradients, means,
            lr=group["lr"], weight_decay=group["weight_decay"], momentum=group["momentum"],
        )  # fmt: skip


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
