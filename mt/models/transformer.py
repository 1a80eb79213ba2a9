"""The Transformer of "Attention Is All You Need" (Vaswani et al. 2017), in the paper's order.

Legend: B sentences, N beams, S source length, T target length, D model width, V vocabulary.
It stays within what CTranslate2's TransformerSpec expresses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal, cast

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from mt.attention import KeyValueCache
from mt.config import Variant
from mt.contracts import PAD, Cache, Memory
from mt.layers import (
    Dropout,
    FeedForward,
    MultiHeadAttention,
    Positions,
    Rotary,
    SelfAttention,
    norm,
    shared_embeddings,
)
from mt.linear import once

if TYPE_CHECKING:
    from mt.vocabulary import Vocabulary


class Config(Variant):
    """Sizes and choices of a Transformer; the defaults are the paper's base model (table 3)."""

    kind: str = "transformer"
    d_model: int = Field(512, ge=2)
    """Width D of the residual stream."""
    n_heads: int = Field(8, ge=1)
    """Attention heads H; each is d_model / n_heads wide."""
    d_ff: int = Field(2048, ge=1)
    """Width of the feed-forward layer."""
    encoder_layers: int = Field(6, ge=1)
    """Layers of the encoder stack."""
    decoder_layers: int = Field(6, ge=1)
    """Layers of the decoder stack."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """On each sublayer's output and on the sums of embeddings and positions (section 5.4)."""
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    """On attention weights."""
    activation_dropout: float = Field(0.0, ge=0, lt=1)
    """Within the feed-forward layer."""
    norm: Literal["pre", "post"] = "post"
    """Normalise each sublayer's input (steadier) or the residual sum (the paper)."""
    norm_kind: Literal["layer", "rms"] = "layer"
    """Layer normalisation or RMS normalisation."""
    activation: Literal["relu", "gelu", "swiglu"] = "relu"
    """Of the feed-forward layer."""
    positions: Literal["sinusoidal", "learned", "rotary", "none"] = "sinusoidal"
    """How the order of the words is told: by what is added to embeddings (section 3.5), or by
    turning the queries and keys of self-attention (`rotary`, Su et al. 2021)."""
    max_length: int | None = Field(None, ge=2)
    """Positions of a learned table; the others know every position."""
    tie_embeddings: Literal["auto", "all", "decoder", "none"] = "auto"
    """Share weights of source, target and output (all), of target and output (decoder);
    `auto`: all with a joint vocabulary, else decoder (section 3.4)."""
    scale_embeddings: bool = True
    """Multiply embeddings by sqrt(d_model) (section 3.4)."""

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.d_model % self.n_heads:
            raise ValueError(
                f"d_model ({self.d_model}) is not divisible by n_heads ({self.n_heads})"
            )
        if self.positions == "learned" and self.max_length is None:
            raise ValueError("positions: learned needs max_length, the size of its table")
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"d_model ({self.d_model}) must be even for sinusoidal positions")
        if self.positions == "rotary" and self.d_model // self.n_heads % 2:
            raise ValueError(
                f"a head's width (d_model / n_heads, {self.d_model // self.n_heads}) must be even "
                "for rotary positions"
            )
        return self


class Sublayer(nn.Module):
    """The residual connection and normalisation around a sublayer (section 3.1)."""

    def __init__(self, config: Config) -> None:
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


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward (section 3.1, figure 1 left)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self_attention = SelfAttention(
            config.d_model, config.n_heads, config.attention_dropout
        )
        self.feed_forward = _feed_forward(config)
        self.sublayers = nn.ModuleList([Sublayer(config) for _ in range(2)])

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """x [B, S, D], valid [B, S] -> [B, S, D]."""
        x = self.sublayers[0](x, lambda y: self.self_attention.attend_self(y, valid, False))
        x = self.sublayers[1](x, self.feed_forward)
        return x


class DecoderLayer(nn.Module):
    """Masked self-attention, cross-attention, feed-forward (section 3.1, figure 1 right)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self_attention = SelfAttention(
            config.d_model, config.n_heads, config.attention_dropout
        )
        self.cross_attention = MultiHeadAttention(
            config.d_model, config.n_heads, config.attention_dropout
        )
        self.feed_forward = _feed_forward(config)
        self.sublayers = nn.ModuleList([Sublayer(config) for _ in range(3)])

    def forward(self, x: Tensor, memory: Tensor, valid: Tensor | None) -> Tensor:
        """All positions at once, as in training: x [B, T, D], memory [B, S, D]."""
        source = self.cross_attention.keys_values(memory)
        x = self.sublayers[0](x, lambda y: self.self_attention.attend_self(y, None, True))
        x = self.sublayers[1](x, lambda y: self.cross_attention(y, source, valid))
        x = self.sublayers[2](x, self.feed_forward)
        return x

    def extend(self, x: Tensor, cache: KeyValueCache, layer: int) -> Tensor:
        """New positions only, as in decoding: x [B*N, t, D]."""
        own, cross = self.self_attention, self.cross_attention
        x = self.sublayers[0](x, lambda y: own.attend_cached(y, cache, layer))
        x = self.sublayers[1](x, lambda y: cross.attend_source(y, cache, layer))
        x = self.sublayers[2](x, self.feed_forward)
        return x


def _feed_forward(config: Config) -> FeedForward:
    return FeedForward(config.d_model, config.d_ff, config.activation_dropout, config.activation)


class Transformer(nn.Module):
    """Encoder and decoder stacks, embeddings and positions (sections 3.1 to 3.5)."""

    def __init__(self, config: Config, source_size: int, target_size: int, tie: str) -> None:
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
        self.encoder = nn.ModuleList([EncoderLayer(config) for _ in range(config.encoder_layers)])
        self.decoder = nn.ModuleList([DecoderLayer(config) for _ in range(config.decoder_layers)])
        final = config.norm == "pre"  # the residual stream itself was never normalised
        self.encoder_norm = norm(config.norm_kind, config.d_model) if final else nn.Identity()
        self.decoder_norm = norm(config.norm_kind, config.d_model) if final else nn.Identity()
        if config.positions == "rotary":
            rotary = Rotary(config.d_model // config.n_heads, length)
            for layer in [*self.encoder, *self.decoder]:
                cast(EncoderLayer | DecoderLayer, layer).self_attention.rotary = rotary
        for layer in self.encoder:
            once(cast(EncoderLayer, layer).self_attention)
        for layer in self.decoder:
            once(cast(DecoderLayer, layer).cross_attention.key_value)
        initialise(self)

    def encode(self, source: Tensor) -> Memory:
        """Source ids [B, S] to memory [B, S, D]."""
        valid = source != PAD  # [B, S]
        table = self.source_embedding or self.target_embedding
        x = self.drop(self.source_positions(table(source) * self.scale))  # [B, S, D]
        for layer in self.encoder:
            x = layer(x, valid)
        return Memory(self.encoder_norm(x), valid)

    def start(self, memory: Memory, beams: int, max_length: int) -> Cache:
        """A cache for `max_length` tokens; the source's keys and values computed once."""
        layers = [cast(DecoderLayer, layer) for layer in self.decoder]
        source = [layer.cross_attention.keys_values(memory.states) for layer in layers]
        return KeyValueCache(source, memory.valid, beams, max_length)

    def decode(self, target: Tensor, memory: Memory, cache: Cache | None = None) -> Tensor:
        """Hidden states [B, T, D] of target inputs [B, T]; with a cache, of the new ones only."""
        known = cast(KeyValueCache, cache).length if cache is not None else 0
        x = self.target_embedding(target) * self.scale  # [B, T, D]
        x = self.drop(self.target_positions(x, known))
        if cache is None:
            for layer in self.decoder:
                x = layer(x, memory.states, memory.valid)
        else:
            kept = cast(KeyValueCache, cache)
            for number, layer in enumerate(self.decoder):
                x = cast(DecoderLayer, layer).extend(x, kept, number)
            kept.advance(*target.shape)
        hidden: Tensor = self.decoder_norm(x)
        return hidden

    def attention(self, source: Tensor, target: Tensor) -> Tensor:
        """Cross-attention [B, T, S] of target inputs, its heads averaged.

        Of the last layer but one, which aligns words best (Garg et al. 2019, section 3).
        """
        layer = cast(DecoderLayer, self.decoder[max(0, len(self.decoder) - 2)])
        seen: list[Tensor] = []
        layer.cross_attention.watch = seen
        try:
            self.decode(target, self.encode(source))
        finally:
            layer.cross_attention.watch = None
        return seen[0].mean(dim=1)

    def output(self) -> tuple[Tensor, Tensor | None]:
        """The projection weight [V, D] and its bias: logits = hidden W^T + b (section 3.4)."""
        if self.projection is not None:
            return self.projection.weight, self.projection.bias
        return self.target_embedding.weight, None

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits [B, T, V] of target inputs [B, T], each position seeing those before it."""
        weight, bias = self.output()
        return F.linear(self.decode(target, self.encode(source)), weight, bias)

    def blocks(self) -> Iterable[nn.Module]:
        """Encoder and decoder layers."""
        return [*self.encoder, *self.decoder]


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


def build(config: Config, vocabulary: Vocabulary) -> Transformer:
    """The model, its weights drawn from torch's generator.

    Raises:
        ConfigError: the embeddings cannot be shared because the vocabulary is not joint.
    """
    tie = shared_embeddings(config.tie_embeddings, vocabulary.joint)
    return Transformer(config, vocabulary.source_size, vocabulary.target_size, tie)
