"""R-Drop: two passes with different dropout shall predict the same (Liang et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from mt.config.section import MAX_FACTOR
from mt.interfaces import Batch, Loss, Seq2Seq, Teacher, Term
from mt.special_tokens import PAD
from mt.training.cross_entropy import CrossEntropy, CrossEntropyConfig
from mt.training.losses import linear_two_passes, select_real_positions
from mt.vocabulary.vocabulary import Vocabulary


class Config(CrossEntropyConfig):
    """The translation loss of two passes, and how far they may lie apart."""

    kind: str = "r_drop"
    alpha: float = Field(5.0, ge=0, le=MAX_FACTOR)
    """Weight of the divergence between the passes; 5 is the paper's for translation."""


class RDrop(CrossEntropy):
    """Half the sum of equation 3: the loss of two passes, and alpha times their divergence.

    Each pair goes through the model twice, in one batch of twice the rows, with other dropout.
    Half, because the mean over all 2P positions then has the scale of `cross_entropy`; the weight
    of the divergence beside it is the paper's. In evaluation mode there is one pass.
    """

    def __init__(self, model: nn.Module, label_smoothing: float, alpha: float) -> None:
        super().__init__(model, label_smoothing)
        self.alpha = alpha

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """Count the positions of both passes."""
        return {"loss": 2 * batch.target_lengths.sum()}

    def forward(self, batch: Batch) -> Loss:
        """Return the loss of one micro-batch."""
        if not self.training:
            return super().forward(batch)
        model = cast(Seq2Seq, self.model)
        source, target = (torch.cat((side, side)) for side in (batch.source, batch.inputs))
        hidden = model.decode(target, model.encode(source))  # [2B, T, D]
        hidden, labels, ignored = select_real_positions(hidden, batch.labels)
        total, _ = linear_two_passes(
            hidden, *model.output(), labels, self.alpha, self.label_smoothing, ignored
        )
        return (Term("loss", total, 2 * (batch.labels != PAD).sum()),)


def build(
    config: Config, model: nn.Module, vocabulary: Vocabulary, teacher: Teacher | None
) -> RDrop:
    """Build the objective."""
    return RDrop(model, config.label_smoothing, config.alpha)
