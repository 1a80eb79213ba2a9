"""AdamW (Kingma and Ba 2015; Loshchilov and Hutter 2019): the paper's Adam when decay is 0."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from mt.config.schema import OptimizerConfig

Beta = Annotated[float, Field(ge=0, lt=1)]


class Config(OptimizerConfig):
    """Adam with decoupled weight decay."""

    kind: str = "adamw"
    betas: tuple[Beta, Beta] = Field((0.9, 0.98), strict=False)
    """Decay of the moments (section 5.3)."""
    epsilon: float = Field(1e-9, gt=0, le=1)
    """Added to the root of the second moment (section 5.3)."""
    weight_decay: float = Field(0.0, ge=0, le=100)
    """Decoupled decay of matrices; biases, norms and embeddings are left out."""


def build(config: Config, named_parameters: Iterable[tuple[str, Tensor]]) -> torch.optim.Optimizer:
    """Build the optimizer in torch's fused form."""
    decayed: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in named_parameters:
        decays = parameter.ndim >= 2 and "embedding" not in name and "positions" not in name
        (decayed if decays else others).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    rate: float | Tensor = config.learning_rate
    on_device = any(parameter.is_cuda for parameter in (*decayed, *others))
    if on_device:  # where a captured or compiled step can read it
        rate = torch.tensor(rate, device=(*decayed, *others)[0].device)
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=rate, betas=config.betas,
        eps=config.epsilon, fused=True, capturable=on_device,
    )  # fmt: skip
