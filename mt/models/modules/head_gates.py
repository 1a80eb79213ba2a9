"""Hard-concrete gates: learn which attention heads a model can do without.

Legend: H heads.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mt.config.section import MAX_FACTOR, Section

LOW, HIGH = -0.1, 1.1
"""The concrete distribution is stretched to this interval, then clamped to [0, 1]."""
TEMPERATURE = 1 / 3
"""Of the concrete distribution."""
OPEN = 2.5
"""Initial log alpha: the gate is open and rarely closes by chance."""
PACE = 10.0
"""log alpha is the parameter times this. Adam moves a parameter by about the learning rate per
update, and 5 units of log alpha lie between open and closed."""


class Config(Section):
    """Gates of the attention heads."""

    kind: Literal["hard_concrete"]
    """`hard_concrete`: learn which heads can be closed (Louizos et al. 2018; Voita et al. 2019,
    section 5); `mt prune RUN --heads closed` removes them."""
    weight: float = Field(0.01, ge=0, le=MAX_FACTOR)
    """Weight of the expected number of open heads in the loss."""

    @model_validator(mode="before")
    @classmethod
    def _without_topk(cls, value: Any) -> Any:
        """Refuse `topk`, which is a model kind now; drop the empty `heads` of older recipes."""
        if not isinstance(value, dict):
            return value
        if value.get("kind") == "topk":
            raise ValueError(
                "topk is a model of its own: use model.kind: mixture_of_heads with "
                "heads_per_sentence and balance_weight in place of head_gates"
            )
        return {key: each for key, each in value.items() if (key, each) != ("heads", None)}


class HardConcrete(nn.Module):
    """A gate in [0, 1] for each head: random in training, fixed at inference, often exactly 0 or 1.

    Louizos et al. 2018, "Learning Sparse Neural Networks through L0 Regularization", section 2.2;
    for heads: Voita et al. 2019, "Analyzing Multi-Head Self-Attention", section 5.
    """

    def __init__(self, n_heads: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((n_heads,), OPEN / PACE))

    def forward(self) -> Tensor:
        """[H]; in training a new sample at each pass, from torch's generator."""
        log_alpha = PACE * self.alpha
        if self.training:
            noise = torch.rand_like(log_alpha).clamp(1e-6, 1 - 1e-6)
            log_alpha = (noise.logit() + log_alpha) / TEMPERATURE
        return (log_alpha.sigmoid() * (HIGH - LOW) + LOW).clamp(0, 1)

    def expected(self) -> Tensor:
        """[] the expected number of gates that are not 0 (equation 12)."""
        return (PACE * self.alpha - TEMPERATURE * math.log(-LOW / HIGH)).sigmoid().sum()


def is_gate(name: str) -> bool:
    """Whether a parameter is that of a gate or a router, which fine-tuning may add."""
    return name.endswith(".gates.alpha") or "_router." in name
