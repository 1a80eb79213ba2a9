"""Word-level knowledge distillation: the student learns what a teacher expects at each position.

Hinton et al. 2015 (section 2: soft targets, temperature, its square); for translation Kim and
Rush 2016, section 3.1. The loss of a position is

    (1 - weight) * cross-entropy + weight * T^2 * KL(teacher || student, both at temperature T)

Sequence-level distillation needs no objective of its own: see `mt distill`.

Legend: P positions, D the student's width, D' the teacher's, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mt.config.section import InputFile, Variant
from mt.errors import ConfigError
from mt.interfaces import Batch, Loss, Seq2Seq, Teacher, Term
from mt.special_tokens import PAD
from mt.training.losses import (
    CHUNK,
    DEVICE_CHUNKS,
    add_gradients,
    select_real_positions,
    sequence_cross_entropy,
    to_parameter_dtype,
    zero_gradients,
)

if TYPE_CHECKING:
    from mt.vocabulary.vocabulary import Vocabulary


class Config(Variant):
    """Cross-entropy, and the divergence from a teacher."""

    kind: str = "distillation"
    teacher: InputFile | None = None
    """The model to learn from, of the same vocabulary: a run, a checkpoint in one, or a bundle."""
    weight: float = Field(0.5, ge=0, le=1)
    """Share of what the teacher says; the rest is that of the references."""
    temperature: float = Field(1.0, gt=0)
    """Both sides' logits are divided by it: above 1 more is learned of what is unlikely."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of each label's probability spread over the vocabulary, in training only."""


class Distillation(nn.Module):
    """Sums over real target positions; in evaluation mode the plain cross-entropy alone."""

    def __init__(self, model: nn.Module, teacher: Teacher, config: Config) -> None:
        super().__init__()
        self.model, self.teacher, self.config = model, teacher, config

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """How many positions each term will sum."""
        return {"loss": batch.target_lengths.sum()}

    def forward(self, batch: Batch) -> Loss:
        """The loss of one micro-batch."""
        model = cast(Seq2Seq, self.model)
        hidden = model.decode(batch.inputs, model.encode(batch.source))  # [B, T, D]
        count = batch.target_lengths.sum()
        if not self.training:
            total = sequence_cross_entropy(hidden, *model.output(), batch.labels)
            return (Term("loss", total, count),)
        theirs = self.teacher.hidden(batch)  # [B, T, D']
        taught, _, _ = select_real_positions(theirs, batch.labels)
        states, labels, _ = select_real_positions(hidden, batch.labels)
        total = taught_cross_entropy(
            states, *model.output(), labels, taught, self.teacher.project, self.config
        )
        return (Term("loss", total, count),)


class _Taught(torch.autograd.Function):
    """Forms the gradients while a chunk's probabilities are at hand; see `mt.loss`."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, taught: Tensor,
        project: Callable[[Tensor], Tensor], config: Config,
    ) -> Tensor:  # fmt: skip
        wanted = any(ctx.needs_input_grad[:3])
        gradients = zero_gradients(hidden, weight, bias, wanted)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        size = CHUNK if hidden.device.type == "cpu" else DEVICE_CHUNKS * CHUNK
        for start in range(0, len(hidden), size):
            rows = slice(start, start + size)
            x = hidden[rows]
            losses, slope = _chunk(
                F.linear(x, weight, bias).float(), project(taught[rows]).float(), labels[rows],
                config,
            )  # fmt: skip
            total += losses.sum()
            if wanted:
                add_gradients(gradients, rows, slope, x, weight)
        ctx.gradients = gradients
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def]
        return *to_parameter_dtype(ctx, gradient), None, None, None, None


def _chunk(logits: Tensor, theirs: Tensor, labels: Tensor, config: Config) -> tuple[Tensor, Tensor]:
    """The loss [P, 1] of each position, and its slope [P, V] by the student's logits [P, V]."""
    share, heat, smoothing = config.weight, config.temperature, config.label_smoothing
    real = (labels != PAD)[:, None]  # [P, 1]
    log_p = logits.log_softmax(-1)  # [P, V]
    own = log_p.gather(1, labels[:, None])  # [P, 1]
    told = -(1 - smoothing) * own - smoothing * log_p.mean(-1, keepdim=True)
    slope = log_p.exp().sub_(smoothing / logits.size(1))
    slope.scatter_add_(1, labels[:, None], torch.full_like(own, smoothing - 1))
    log_q = (theirs / heat).log_softmax(-1)  # the teacher's
    q = log_q.exp()
    softened = log_p if heat == 1 else (logits / heat).log_softmax(-1)
    divergence = (q * (log_q - softened)).sum(-1, keepdim=True)  # [P, 1]
    slope.mul_(1 - share).add_(softened.exp().sub_(q), alpha=share * heat)
    losses = (1 - share) * told + share * heat * heat * divergence
    return losses * real, slope.mul_(real)


def taught_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, taught: Tensor,
    project: Callable[[Tensor], Tensor], config: Config,
) -> Tensor:  # fmt: skip
    """The sum over P positions of the loss above, never all logits at once.

    Args:
        hidden: [P, D] the student's states.
        weight: [V, D]. bias: [V] or None.
        labels: [P] ids; padding counts nothing.
        taught: [P, D'] the teacher's states.
        project: gives the teacher's logits of them.
        config: weight, temperature, label smoothing.
    """
    arguments: Any = (hidden, weight, bias, labels, taught, project, config)
    total: Tensor = _Taught.apply(*arguments)  # type: ignore[no-untyped-call]
    return total


def plain_taught_cross_entropy(
    logits: Tensor, theirs: Tensor, labels: Tensor, config: Config
) -> Tensor:
    """What `taught_cross_entropy` must equal, by torch's own losses over all logits [P, V]."""
    smoothing, heat = config.label_smoothing, config.temperature
    told = F.cross_entropy(
        logits, labels, ignore_index=PAD, label_smoothing=smoothing, reduction="sum"
    )
    ours, taught = ((each / heat).log_softmax(-1) for each in (logits, theirs))
    each = F.kl_div(ours, taught, log_target=True, reduction="none").sum(-1)
    return (1 - config.weight) * told + config.weight * heat**2 * each[labels != PAD].sum()


def build(
    config: Config, model: nn.Module, vocabulary: Vocabulary, teacher: Teacher | None
) -> Distillation:
    """The objective.

    Raises:
        ConfigError: there is no teacher.
    """
    if teacher is None:
        advice = "give the path of a trained run, or use mt distill"
        raise ConfigError("TEACHER", "objective.teacher", "distillation needs a teacher", advice)
    return Distillation(model, teacher, config)
