"""The cross-entropy that objectives share: teacher-forced, with label smoothing (section 5.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pydantic import Field
from torch import Tensor, nn

from mt.config.section import MAX_FACTOR, Variant
from mt.interfaces import Batch, Loss, Seq2Seq, Term
from mt.special_tokens import PAD
from mt.training.losses import sequence_cross_entropy


class CrossEntropyConfig(Variant):
    """What all objectives with a cross-entropy have."""

    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of each label's probability spread over the vocabulary, in training only."""
    alignment_weight: float = Field(0.0, ge=0, le=MAX_FACTOR)
    """Weight of guided alignment: cross-attention learns to look where words that occur together
    (IBM Model 1) say; for small data. 0: none."""


class CrossEntropy(nn.Module):
    """-log p(y_t | y_<t, x), summed over real target positions; labels are smoothed in training."""

    def __init__(self, model: nn.Module, label_smoothing: float) -> None:
        super().__init__()
        self.model, self.label_smoothing = model, label_smoothing

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """Count the positions of each term."""
        return {"loss": batch.target_lengths.sum()}

    def forward(self, batch: Batch) -> Loss:
        """Return the loss of one micro-batch."""
        model = cast(Seq2Seq, self.model)
        hidden = model.decode(batch.inputs, model.encode(batch.source))  # [B, T, D]
        smoothing = self.label_smoothing if self.training else 0.0
        total = sequence_cross_entropy(hidden, *model.output(), batch.labels, smoothing)
        return (Term("loss", total, (batch.labels != PAD).sum()),)
