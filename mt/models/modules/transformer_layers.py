"""What Transformers share whatever their attention is: residual sublayers, first weights, maps.

Sections are those of "Attention Is All You Need" (Vaswani et al. 2017).

Legend: B sentences, S source length, T target length, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mt.models.modules.layers import Dropout, FeedForward, norm, watching


class Sublayer(nn.Module):
    """The residual connection and normalisation around a sublayer (section 3.1)."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.before = config.norm == "pre"
        self.norm = norm(config.norm_kind, config.d_model)
        self.drop = Dropout(config.dropout)

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """LayerNorm(x + Sublayer(x)), or x + Sublayer(LayerNorm(x)) when `norm: pre`."""
        if self.before:
            return x + self.drop(sublayer(self.norm(x)))
        normalised: Tensor = self.norm(x + self.drop(sublayer(x)))
        return normalised


def feed_forward(config: Any) -> FeedForward:
    """Build the feed-forward layer (section 3.3) of a model's config."""
    return FeedForward(config.d_model, config.d_ff, config.activation_dropout, config.activation)


def initialise(model: nn.Module) -> None:
    """Draw the weights.

    | weight | drawn from |
    |---|---|
    | embeddings, learned positions | normal, deviation D^-0.5 |
    | linear layers (keys and values each for themselves) | Xavier uniform |
    | biases | 0 |
    | norms | 1, and 0 for the bias |
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
        elif isinstance(module, nn.Linear):
            parts = 2 if name.endswith("key_value") else 1
            for part in module.weight.chunk(parts):
                nn.init.xavier_uniform_(part)
            nn.init.zeros_(module.bias)


def alignment(model: Any, source: Tensor, target: Tensor) -> Tensor:
    """Compute cross-attention [B, T, S] of target inputs, the mean over heads.

    It is that of the last layer but one, which aligns words best (Garg et al. 2019, section 3).
    """
    layer = model.decoder[max(0, len(model.decoder) - 2)]
    with watching([layer.cross_attention]) as seen:
        model.decode(target, model.encode(source))
    return seen[0].mean(dim=1)


def attention_maps(model: Any, source: Tensor, target: Tensor) -> Mapping[str, Sequence[Tensor]]:
    """Compute the weights of every head of every layer; see `mt.contracts.Seq2Seq.attentions`."""
    with (
        watching(layer.self_attention for layer in model.encoder) as encoder,
        watching(layer.self_attention for layer in model.decoder) as decoder,
        watching(layer.cross_attention for layer in model.decoder) as cross,
    ):
        model.decode(target, model.encode(source))
    return {"encoder": encoder, "decoder": decoder, "cross": cross}
