"""Hard-concrete gates of attention heads, which learning can close, and the loss terms of heads.

Legend: H heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mt.config.section import Section
from mt.interfaces import Batch, Loss, Objective, Term

LOW, HIGH = -0.1, 1.1
"""The concrete distribution is stretched to this interval, then cut to [0, 1]."""
TEMPERATURE = 1 / 3
"""Of the concrete distribution."""
OPEN = 2.5
"""log alpha at the start, where a gate is wholly open and rarely closes by chance."""
PACE = 10.0
"""A gate's log alpha is so many times its parameter: Adam moves each parameter by about its rate
at an update, and between open and closed lie 5 units."""


class Config(Section):
    """Gates of the attention heads."""

    kind: Literal["hard_concrete"]
    """`hard_concrete`: learns which heads can be closed for good (Louizos et al. 2018; Voita et
    al. 2019, section 5), and `mt prune RUN --heads closed` takes them out."""
    weight: float = Field(0.01, ge=0)
    """The cost of one more open head of the model."""

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


# ------------------------------------------------------------------------- gates that close


class HardConcrete(nn.Module):
    """A gate in [0, 1] for each head: random in training, fixed at inference, often exactly 0 or 1.

    Louizos et al. 2018, "Learning Sparse Neural Networks through L0 Regularization", section 2.2;
    for heads: Voita et al. 2019, "Analyzing Multi-Head Self-Attention", section 5.
    """

    def __init__(self, n_heads: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((n_heads,), OPEN / PACE))

    def forward(self) -> Tensor:
        """[H]; in training drawn anew at each pass, from torch's generator."""
        log_alpha = PACE * self.alpha
        if self.training:
            noise = torch.rand_like(log_alpha).clamp(1e-6, 1 - 1e-6)
            log_alpha = (noise.logit() + log_alpha) / TEMPERATURE
        return (log_alpha.sigmoid() * (HIGH - LOW) + LOW).clamp(0, 1)

    def expected(self) -> Tensor:
        """[] how many gates are not 0, in expectation (equation 12)."""
        return (PACE * self.alpha - TEMPERATURE * math.log(-LOW / HIGH)).sigmoid().sum()


def is_gate(name: str) -> bool:
    """Whether a parameter belongs to a gate or a router, which fine-tuning may add to a model."""
    return name.endswith(".gates.alpha") or "_router." in name


# ---------------------------------------------------------------------------------- the loss


class Gated(nn.Module):
    """An objective and, in training, the terms of the gates and routers of its model.

    A router is a module with a method `balance() -> Tensor` [], which balances the load of heads.

    Args:
        objective: the objective of the recipe.
        model: the model that it trains.
        weight: of the term.
    """

    def __init__(self, objective: nn.Module, model: nn.Module, weight: float) -> None:
        super().__init__()
        self.objective, self.weight = objective, weight
        self.closing = nn.ModuleList(m for m in model.modules() if isinstance(m, HardConcrete))
        self.routers = nn.ModuleList(m for m in model.modules() if hasattr(m, "balance"))

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """How many positions, or sentences, each term will sum."""
        counted = cast(Objective, self.objective).counts(batch)
        return {**counted, "head_gates": _sentences(batch)} if self.training else counted

    def forward(self, batch: Batch) -> Loss:
        """The loss of one micro-batch."""
        terms: Loss = self.objective(batch)
        if not self.training:
            return terms
        sentences = _sentences(batch)
        total = sentences * sum(cast(HardConcrete, each).expected() for each in self.closing)
        total = total + sum(cast(Any, each).balance() for each in self.routers)
        return (*terms, Term("head_gates", total, sentences, self.weight))


def _sentences(batch: Batch) -> Tensor:
    return (batch.target_lengths > 0).sum()


def gated(objective: nn.Module, model: nn.Module, config: object) -> nn.Module:
    """Add the terms of the model's gates or routers to the objective, if it has any.

    Args:
        objective: the objective of the recipe.
        model: the model that it trains.
        config: that of the model.
    """
    gates: Config | None = getattr(config, "head_gates", None)
    weight = getattr(config, "balance_weight", None) if gates is None else gates.weight
    return objective if weight is None else Gated(objective, model, weight)
