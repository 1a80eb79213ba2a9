"""Add the loss terms of head gates and routers to an objective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from mt.interfaces import Batch, Loss, Objective, Term
from mt.models.modules.head_gates import Config, HardConcrete


class HeadGateLoss(nn.Module):
    """An objective and, in training, the terms of the gates and routers of its model.

    A router is a module with a method `balance() -> Tensor` [], which balances the load of heads.
    """

    def __init__(self, objective: nn.Module, model: nn.Module, weight: float) -> None:
        super().__init__()
        self.objective, self.weight = objective, weight
        self.gates = nn.ModuleList(m for m in model.modules() if isinstance(m, HardConcrete))
        self.routers = nn.ModuleList(m for m in model.modules() if hasattr(m, "balance"))

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """Count the positions or sentences of each term."""
        counts = cast(Objective, self.objective).counts(batch)
        return {**counts, "head_gates": _count_sentences(batch)} if self.training else counts

    def forward(self, batch: Batch) -> Loss:
        """Return the loss of one micro-batch."""
        terms: Loss = self.objective(batch)
        if not self.training:
            return terms
        sentences = _count_sentences(batch)
        total = sentences * sum(cast(HardConcrete, each).expected() for each in self.gates)
        total = total + sum(cast(Any, each).balance() for each in self.routers)
        return (*terms, Term("head_gates", total, sentences, self.weight))


def _count_sentences(batch: Batch) -> Tensor:
    return (batch.target_lengths > 0).sum()


def add_head_gate_loss(objective: nn.Module, model: nn.Module, config: object) -> nn.Module:
    """Add the terms of the model's gates or routers, if its `config` has any."""
    gates: Config | None = getattr(config, "head_gates", None)
    weight = getattr(config, "balance_weight", None) if gates is None else gates.weight
    return objective if weight is None else HeadGateLoss(objective, model, weight)
