"""Word dropout and tied embeddings."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mt.config.section import Section
from mt.errors import ConfigError
from mt.special_tokens import FIRST_PIECE, UNK


class WordDropoutConfig(Section):
    """The share of words that are hidden from a model in training."""

    source: float = Field(0.0, ge=0, lt=1)
    """Probability that a source piece is hidden."""
    target: float = Field(0.0, ge=0, lt=1)
    """Probability that a piece of the decoder's input is hidden; it is still a label."""
    by: Literal["zero", "unk"] = "zero"
    """The embedding of a hidden piece: zero, or that of `<unk>`."""


class WordDropout(nn.Module):
    """Embeds ids and, in training, hides some words (Gal and Ghahramani 2016, section 4.2).

    Each position is hidden independently (Sennrich and Zhang 2019); the older paper hides all
    occurrences of a word at once. Special pieces are never hidden. With `zero` the others are
    scaled up, so that their expectation is unchanged.
    """

    def __init__(self, probability: float, by: Literal["zero", "unk"]) -> None:
        super().__init__()
        self.probability, self.by = probability, by

    def forward(self, table: nn.Embedding, ids: Tensor) -> Tensor:
        """Ids [B, T] to embeddings [B, T, D]."""
        if not self.training or self.probability == 0:
            embedded: Tensor = table(ids)
            return embedded
        hidden = torch.rand(ids.shape, device=ids.device) < self.probability
        hidden &= ids >= FIRST_PIECE
        if self.by == "unk":
            return table(ids.masked_fill(hidden, UNK))
        shown = torch.where(hidden, 0.0, 1 / (1 - self.probability))  # [B, T]
        shown = torch.where(ids >= FIRST_PIECE, shown, 1.0)
        return table(ids) * shown[..., None]


def shared_embeddings(tie: str, joint: bool) -> str:
    """Which embeddings share weights (section 3.4), `auto` resolved: `all`, `decoder` or `none`.

    Raises:
        ConfigError: `all` needs a joint vocabulary.
    """
    if tie == "auto":
        return "all" if joint else "decoder"
    if tie == "all" and not joint:
        what = "all shares source and target, which needs a joint vocabulary"
        advice = "set vocabulary.joint: true, or model.tie_embeddings: decoder"
        raise ConfigError("CONFIG", "model.tie_embeddings", what, advice)
    return tie
