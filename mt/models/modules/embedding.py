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
    """Which share of the words a model is not shown in training."""

    source: float = Field(0.0, ge=0, lt=1)
    """Probability that a source piece is hidden."""
    target: float = Field(0.0, ge=0, lt=1)
    """Probability that a piece of the target so far is hidden; it is still to be predicted."""
    by: Literal["zero", "unk"] = "zero"
    """A hidden piece has no embedding at all, or that of `<unk>`."""


class WordDropout(nn.Module):
    """Embeds ids, in training without some of them (Gal and Ghahramani 2016, section 4.2).

    Each position is hidden by itself, as Sennrich and Zhang (2019) do it, where the older paper
    hides all occurrences of a word at once. What is no text (`<s>`, `</s>`, a tag) is always
    shown. With `zero` the others are scaled up, so that their expectation stays.
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


def shared_embeddings(asked: str, joint: bool) -> str:
    """Which embeddings are one (section 3.4): `all`, `decoder` or `none`.

    Args:
        asked: `model.tie_embeddings`; `auto` shares all that can be.
        joint: whether source and target have the same vocabulary.

    Raises:
        ConfigError: all shall be one, but there are two vocabularies.
    """
    if asked == "auto":
        return "all" if joint else "decoder"
    if asked == "all" and not joint:
        what = "all shares source and target, which needs a joint vocabulary"
        advice = "set vocabulary.joint: true, or model.tie_embeddings: decoder"
        raise ConfigError("CONFIG", "model.tie_embeddings", what, advice)
    return asked
