"""Gates of attention heads: one for each head that learning can close, or a choice per sentence.

Legend: B sentences, S source length, D model width, H heads, k heads chosen, A attentions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

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

    kind: Literal["hard_concrete", "topk"]
    """`hard_concrete`: learns which heads can be closed for good (Louizos et al. 2018; Voita et
    al. 2019, section 5), and `mt prune RUN --heads closed` takes them out. `topk`: chooses `heads`
    heads for each sentence and computes no others."""
    weight: float = Field(0.01, ge=0)
    """What one more open head of the model costs (hard_concrete); how hard the load of the heads
    is evened out (topk)."""
    heads: int | None = Field(None, ge=1)
    """How many heads of each attention a sentence has (topk)."""

    @model_validator(mode="after")
    def _heads_of_topk(self) -> Config:
        if (self.kind == "topk") != (self.heads is not None):
            raise ValueError(
                "topk needs head_gates.heads, how many a sentence has"
                if self.kind == "topk"
                else f"head_gates.heads is of topk, not of {self.kind}"
            )
        return self


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


# --------------------------------------------------------------------- a choice per sentence


class Choice:
    """The heads that each sentence has of one attention.

    Args:
        heads: [B, k] their numbers, ascending.
        weights: [B, k] what each gives is multiplied by.
        n_heads: H.
    """

    def __init__(self, heads: Tensor, weights: Tensor, n_heads: int) -> None:
        self.heads, self.weights, self.n_heads = heads, weights, n_heads

    @cached_property
    def order(self) -> Tensor:
        """[B*k] the pairs of a sentence and its head, those of one head together."""
        return self.heads.flatten().argsort(stable=True)

    @cached_property
    def places(self) -> Tensor:
        """[B*k] where in that order each pair is."""
        return self.order.argsort()

    @cached_property
    def sentences(self) -> Tensor:
        """[B*k] whose pair each is, in that order."""
        return self.order // self.heads.size(1)

    @cached_property
    def counts(self) -> list[int]:
        """How many sentences have each head; a device is waited for."""
        counted: list[int] = self.heads.flatten().bincount(minlength=self.n_heads).tolist()
        return counted

    def keep(self, sentences: Tensor) -> Choice:
        """That of these sentences [B'] only."""
        return Choice(self.heads[sentences], self.weights[sentences], self.n_heads)


class Router(nn.Module):
    """Chooses k of H heads of each of A attentions for a sentence, by the mean of its states.

    What a chosen head gives is weighted by its share p of a softmax over all, divided by the mean
    share of those chosen, through which no gradient flows: so the choice learns from the loss even
    where k is 1 (Zhang et al. 2022, "Mixture of Attention Heads", section 3.1).

    That all heads be used alike, the bias of each, which decides who is chosen, goes down when
    more sentences chose it than k/H, and up when fewer (as of experts: Wang et al. 2024,
    "Auxiliary-Loss-Free Load Balancing"); here by a term of the loss that is linear in the bias.
    It is a sum over sentences, so that no way of cutting an update into batches changes it, and
    its value is 0, so that the loss that is reported is the model's.
    """

    def __init__(self, d_model: int, attentions: int, n_heads: int, chosen: int) -> None:
        super().__init__()
        self.attentions, self.n_heads, self.chosen = attentions, n_heads, chosen
        self.linear = nn.Linear(d_model, attentions * n_heads)
        self.loads: Tensor | None = None
        """[A*H] by how many sentences more than its share each was chosen, since `terms`."""

    def forward(self, states: Tensor, valid: Tensor) -> list[Choice]:
        """The choice of each attention, by states [B, S, D] where `valid` [B, S]."""
        weight, bias = self.linear.weight, self.linear.bias
        with torch.autocast(states.device.type, enabled=False):
            real = valid[..., None].to(weight.dtype)
            mean = (states.to(weight.dtype) * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
            logits = F.linear(mean, weight, bias).unflatten(1, (self.attentions, self.n_heads))
        heads = logits.topk(self.chosen, dim=-1).indices.sort(dim=-1).values  # [B, A, k]
        shares = logits.softmax(dim=-1).gather(-1, heads)
        weights = shares / shares.detach().mean(dim=-1, keepdim=True)
        if self.training:
            used = torch.zeros_like(logits).scatter(-1, heads, 1.0) - self.chosen / self.n_heads
            loads = (used.detach() * valid.any(dim=1)[:, None, None]).sum(dim=0).flatten()
            self.loads = loads if self.loads is None else self.loads + loads
        pairs = zip(heads.unbind(dim=1), weights.unbind(dim=1), strict=True)
        return [Choice(each, share, self.n_heads) for each, share in pairs]

    def balance(self) -> Tensor:
        """[] 0, whose gradient evens out the load of the passes since it was last asked for."""
        loads, self.loads = self.loads, None
        if loads is None:
            return self.linear.bias.sum() * 0
        total = (self.linear.bias * loads).sum()
        return total - total.detach()


def is_gate(name: str) -> bool:
    """Whether a parameter of that name belongs to a gate, which a trained model can be given."""
    return name.endswith(".gates.alpha") or "_router." in name


# ---------------------------------------------------------------------------------- the loss


class Gated(nn.Module):
    """An objective and, in training, what the gates of its model add to it.

    Args:
        objective: the objective of the recipe.
        model: the model that it trains.
        weight: of the term.
    """

    def __init__(self, objective: nn.Module, model: nn.Module, weight: float) -> None:
        super().__init__()
        self.objective, self.weight = objective, weight
        self.closing = nn.ModuleList(m for m in model.modules() if isinstance(m, HardConcrete))
        self.routers = nn.ModuleList(m for m in model.modules() if isinstance(m, Router))

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
        total = total + sum(cast(Router, each).balance() for each in self.routers)
        return (*terms, Term("head_gates", total, sentences, self.weight))


def _sentences(batch: Batch) -> Tensor:
    return (batch.target_lengths > 0).sum()


def gated(objective: nn.Module, model: nn.Module, config: object) -> nn.Module:
    """The objective with what the model's gates add to it; as it is when there are none.

    Args:
        objective: the objective of the recipe.
        model: the model that it trains.
        config: that of the model.
    """
    gates: Config | None = getattr(config, "head_gates", None)
    return objective if gates is None else Gated(objective, model, gates.weight)
