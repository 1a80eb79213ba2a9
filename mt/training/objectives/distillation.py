"""Word-level knowledge distillation: the student learns what a teacher expects at each position.

Hinton et al. 2015 (section 2: soft targets, temperature, its square); for translation Kim and
Rush 2016, section 3.1. The loss of a position is

    (1 - weight) * cross-entropy + weight * T^2 * KL(teacher || student, both at temperature T)

Sequence-level distillation needs no objective of its own: see `mt distill`.

Legend: P positions, D the student's width, D' the teacher's, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from mt.config.section import MAX_FACTOR, InputFile
from mt.errors import ConfigError
from mt.interfaces import Batch, Loss, Seq2Seq, Teacher, Term
from mt.special_tokens import PAD
from mt.training.cross_entropy import CrossEntropy, CrossEntropyConfig
from mt.training.losses import chunked_loss, select_real_positions
from mt.vocabulary.vocabulary import Vocabulary


class Config(CrossEntropyConfig):
    """Cross-entropy, and the divergence from a teacher."""

    kind: str = "distillation"
    teacher: InputFile | None = None
    """The model to learn from, of the same vocabulary: a run, a checkpoint in one, or a bundle."""
    weight: float = Field(0.5, ge=0, le=1)
    """Share of the loss against the teacher; the rest is against the references."""
    temperature: float = Field(1.0, gt=0, le=MAX_FACTOR)
    """Both sides' logits are divided by it: above 1 more is learned of what is unlikely."""


class Distillation(CrossEntropy):
    """Sums over real target positions; in evaluation mode the plain cross-entropy alone."""

    def __init__(self, model: nn.Module, teacher: Teacher, config: Config) -> None:
        super().__init__(model, config.label_smoothing)
        self.teacher, self.config = teacher, config

    def forward(self, batch: Batch) -> Loss:
        """Return the loss of one micro-batch."""
        if not self.training:
            return super().forward(batch)
        model = cast(Seq2Seq, self.model)
        hidden = model.decode(batch.inputs, model.encode(batch.source))  # [B, T, D]
        teacher_states, _, _ = select_real_positions(self.teacher.hidden(batch), batch.labels)
        states, labels, _ = select_real_positions(hidden, batch.labels)
        total = distillation_loss(
            states, *model.output(), labels, teacher_states, self.teacher.project, self.config
        )
        return (Term("loss", total, batch.target_lengths.sum()),)


def distillation_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, teacher_hidden: Tensor,
    project: Callable[[Tensor], Tensor], config: Config,
) -> Tensor:  # fmt: skip
    """Sum the loss above over P positions, without padding.

    Args:
        hidden: [P, D]. weight: [V, D]. bias: [V] or None. labels: [P] ids.
        teacher_hidden: [P, D'], of which `project` returns the logits.
    """

    def logit_gradient(z: Tensor, places: slice, needed: bool) -> tuple[Tensor, float]:
        y = labels[places]
        with torch.autocast(z.device.type, dtype=autocast_dtype, enabled=autocast):
            theirs = project(teacher_hidden[places]).float()
        losses, slope = _losses_and_slope(z[: len(y)].float(), theirs, y, config)
        z[: len(y)] = slope
        z[len(y) :] = 0
        return losses.sum(), 0.0

    device = hidden.device.type
    autocast, autocast_dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    return chunked_loss(hidden, weight, bias, logit_gradient)[0]


def _losses_and_slope(
    logits: Tensor, theirs: Tensor, labels: Tensor, config: Config
) -> tuple[Tensor, Tensor]:
    """Return the loss [P, 1] of each position, and its derivative [P, V] by the logits."""
    share, heat, smoothing = config.weight, config.temperature, config.label_smoothing
    real = (labels != PAD)[:, None]  # [P, 1]
    log_p = logits.log_softmax(-1)  # [P, V]
    label_log_p = log_p.gather(1, labels[:, None])  # [P, 1]
    own_loss = -(1 - smoothing) * label_log_p - smoothing * log_p.mean(-1, keepdim=True)
    slope = log_p.exp().sub_(smoothing / logits.size(1))
    slope.scatter_add_(1, labels[:, None], torch.full_like(label_log_p, smoothing - 1))
    log_q = (theirs / heat).log_softmax(-1)  # the teacher's
    q = log_q.exp()
    softened = log_p if heat == 1 else (logits / heat).log_softmax(-1)
    divergence = (q * (log_q - softened)).sum(-1, keepdim=True)  # [P, 1]
    slope.mul_(1 - share).add_(softened.exp().sub_(q), alpha=share * heat)
    losses = (1 - share) * own_loss + share * heat * heat * divergence
    return losses * real, slope.mul_(real)


def build(
    config: Config, model: nn.Module, vocabulary: Vocabulary, teacher: Teacher | None
) -> Distillation:
    """Build the objective; raise a ConfigError when there is no teacher."""
    if teacher is None:
        advice = "give the path of a trained run, or use mt distill"
        raise ConfigError("TEACHER", "objective.teacher", "distillation needs a teacher", advice)
    return Distillation(model, teacher, config)
