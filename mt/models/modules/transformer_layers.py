"""What all kinds of Transformer share: residual sublayers, embeddings around two stacks of layers.

Sections are those of "Attention Is All You Need" (Vaswani et al. 2017).

Legend: B sentences, S source length, T target length, D model width, H heads, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from mt.config.section import MAX_LAYERS, MAX_POSITIONS, MAX_WIDTH, Variant
from mt.interfaces import Cache, Memory
from mt.models.modules.embedding import WordDropout, WordDropoutConfig
from mt.models.modules.layers import Dropout, FeedForward, norm, record_attention
from mt.models.modules.positions import Positions
from mt.special_tokens import PAD


class TransformerConfig(Variant):
    """Sizes and options of every kind of Transformer."""

    d_model: int = Field(512, ge=2, le=MAX_WIDTH)
    """Width D of the residual stream."""
    n_heads: int = Field(8, ge=1, le=MAX_WIDTH)
    """Attention heads H."""
    d_head: int | None = Field(None, ge=1, le=MAX_WIDTH)
    """Width K of a head; d_model / n_heads when left out. Pruning keeps it."""
    d_ff: int = Field(2048, ge=1, le=MAX_WIDTH)
    """Width of the feed-forward layer."""
    encoder_layers: int = Field(6, ge=1, le=MAX_LAYERS)
    """Layers of the encoder stack."""
    decoder_layers: int = Field(6, ge=1, le=MAX_LAYERS)
    """Layers of the decoder stack."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """On each sublayer's output and on the sums of embeddings and positions (section 5.4)."""
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    """On attention weights."""
    activation_dropout: float = Field(0.0, ge=0, lt=1)
    """Within the feed-forward layer."""
    word_dropout: WordDropoutConfig = WordDropoutConfig()
    """Whole words that are hidden from encoder and decoder."""
    norm: Literal["pre", "post"] = "post"
    """Normalise each sublayer's input (steadier) or the residual sum (the paper)."""
    norm_kind: Literal["layer", "rms"] = "layer"
    """Layer normalisation or RMS normalisation."""
    activation: Literal["relu", "gelu", "swiglu"] = "relu"
    """Of the feed-forward layer."""
    positions: Literal["sinusoidal", "learned", "rotary", "none"] = "sinusoidal"
    """Position encoding: added to embeddings (section 3.5), or a rotation of the queries and keys
    of self-attention (`rotary`, Su et al. 2021)."""
    max_length: int | None = Field(None, ge=2, le=MAX_POSITIONS)
    """Positions of a learned table; the others have no limit."""
    tie_embeddings: Literal["auto", "all", "decoder", "none"] = "auto"
    """Share weights of source, target and output (all), of target and output (decoder);
    `auto`: all with a joint vocabulary, else decoder (section 3.4)."""
    scale_embeddings: bool = True
    """Multiply embeddings by sqrt(d_model) (section 3.4)."""

    @model_validator(mode="after")
    def _sizes_agree(self) -> TransformerConfig:
        d_model, n_heads = self.d_model, self.n_heads
        if self.d_head is None and d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) is not divisible by n_heads ({n_heads})")
        if self.positions == "learned" and self.max_length is None:
            raise ValueError("positions: learned needs max_length, the size of its table")
        if self.positions == "sinusoidal" and d_model % 2:
            raise ValueError(f"d_model ({d_model}) must be even for sinusoidal positions")
        return self


class Sublayer(nn.Module):
    """The residual connection and normalisation around a sublayer (section 3.1)."""

    def __init__(self, config: TransformerConfig) -> None:
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


def feed_forward(config: TransformerConfig) -> FeedForward:
    """Build the feed-forward layer (section 3.3) of a model's config."""
    return FeedForward(config.d_model, config.d_ff, config.activation_dropout, config.activation)


def initialise(model: nn.Module) -> None:
    """Draw the weights from torch's generator.

    | weight | drawn from |
    |---|---|
    | embeddings, learned positions | normal, deviation D^-0.5 |
    | linear layers (keys and values separately) | Xavier uniform |
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


class TransformerStacks(nn.Module):
    """Embeddings and positions, a stack of encoder layers and one of decoder layers.

    A kind of Transformer adds `encode`, `start` and `decode`; see `mt.interfaces.Seq2Seq`.
    """

    def __init__(
        self, config: TransformerConfig, source_size: int, target_size: int, tie: str,
        encoder: Iterable[nn.Module], decoder: Iterable[nn.Module],
    ) -> None:  # fmt: skip
        super().__init__()
        self.scale = math.sqrt(config.d_model) if config.scale_embeddings else 1.0
        # The target embedding comes first: it owns the weights that are shared.
        self.target_embedding = nn.Embedding(target_size, config.d_model)
        self.source_embedding = None if tie == "all" else nn.Embedding(source_size, config.d_model)
        self.projection = nn.Linear(config.d_model, target_size) if tie == "none" else None
        length = config.max_length or 1024
        self.source_positions = Positions(config.positions, config.d_model, length)
        self.target_positions = Positions(config.positions, config.d_model, length)
        self.drop = Dropout(config.dropout)
        words = config.word_dropout
        self.source_words = WordDropout(words.source, words.by)
        self.target_words = WordDropout(words.target, words.by)
        self.encoder, self.decoder = nn.ModuleList(encoder), nn.ModuleList(decoder)
        final = config.norm == "pre"  # the residual stream itself was never normalised
        self.encoder_norm = norm(config.norm_kind, config.d_model) if final else nn.Identity()
        self.decoder_norm = norm(config.norm_kind, config.d_model) if final else nn.Identity()

    def encode(self, source: Tensor) -> Memory:
        """Source ids [B, S] to memory [B, S, D]."""
        raise NotImplementedError

    def decode(self, target: Tensor, memory: Memory, cache: Cache | None = None) -> Tensor:
        """Hidden states [B, T, D] of target inputs [B, T]; with a cache, of the new ones only."""
        raise NotImplementedError

    def embed_source(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's input [B, S, D] of source ids [B, S], and which are valid [B, S]."""
        table = self.source_embedding or self.target_embedding
        x = self.source_words(table, source) * self.scale  # [B, S, D]
        return self.drop(self.source_positions(x)), source != PAD

    def embed_target(self, target: Tensor, start: int | Tensor) -> Tensor:
        """The decoder's input [B, T, D] of target ids [B, T] from position `start` on."""
        x = self.target_words(self.target_embedding, target) * self.scale  # [B, T, D]
        embedded: Tensor = self.drop(self.target_positions(x, start))
        return embedded

    def record_alignment(self) -> AbstractContextManager[list[Tensor]]:
        """Record the cross-attention [B, H, T, S] of each `decode` without a cache that aligns.

        That of the last layer but one aligns words best (Garg et al. 2019, section 3).
        """
        layer: Any = self.decoder[max(0, len(self.decoder) - 2)]
        return record_attention([layer.cross_attention])

    def attention(self, source: Tensor, target: Tensor) -> Tensor:
        """The mean over heads [B, T, S] of what `record_alignment` records."""
        with self.record_alignment() as weights:
            self.decode(target, self.encode(source))
        return weights[0].mean(dim=1)

    def attentions(self, source: Tensor, target: Tensor) -> Mapping[str, Sequence[Tensor]]:
        """The weights of every head of every layer; see `mt.interfaces.Seq2Seq.attentions`."""
        encoders: list[Any] = list(self.encoder)
        decoders: list[Any] = list(self.decoder)
        with (
            record_attention(layer.self_attention for layer in encoders) as encoder,
            record_attention(layer.self_attention for layer in decoders) as decoder,
            record_attention(layer.cross_attention for layer in decoders) as cross,
        ):
            self.decode(target, self.encode(source))
        return {"encoder": encoder, "decoder": decoder, "cross": cross}

    def output(self) -> tuple[Tensor, Tensor | None]:
        """The projection weight [V, D] and its bias: logits = hidden W^T + b (section 3.4)."""
        if self.projection is not None:
            return self.projection.weight, self.projection.bias
        return self.target_embedding.weight, None

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits [B, T, V] of target inputs [B, T], each position from those before it."""
        weight, bias = self.output()
        return F.linear(self.decode(target, self.encode(source)), weight, bias)

    def blocks(self) -> Iterable[nn.Module]:
        """Encoder and decoder layers."""
        return [*self.encoder, *self.decoder]
