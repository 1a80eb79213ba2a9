"""A Transformer in which a router selects k heads of each attention for each sentence.

The other parts are those of `transformer`. See `mt.mixture_of_heads` for the attention.

Legend: B sentences, N beams, S source length, T target length, D model width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, cast

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from mt.config.section import Variant
from mt.interfaces import Cache, Memory
from mt.models.modules.embedding import WordDropout, WordDropoutConfig, shared_embeddings
from mt.models.modules.layers import Dropout, norm
from mt.models.modules.linear import keep_fp32
from mt.models.modules.mixture_of_heads import (
    HeadRouter,
    HeadSelection,
    MixtureOfHeadsAttention,
    MixtureOfHeadsCache,
)
from mt.models.modules.positions import Positions
from mt.models.modules.transformer_layers import (
    Sublayer,
    alignment,
    attention_maps,
    feed_forward,
    initialise,
)
from mt.special_tokens import PAD

if TYPE_CHECKING:
    from mt.vocabulary.vocabulary import Vocabulary

Selections = tuple[HeadSelection, HeadSelection]
"""Of the self-attention and of the cross-attention of a decoder layer."""


class Config(Variant):
    """Sizes and options of a mixture of heads; those of `transformer` have its defaults."""

    kind: str = "mixture_of_heads"
    d_model: int = Field(512, ge=2)
    """Width D of the residual stream."""
    n_heads: int = Field(8, ge=1)
    """Attention heads H of the model."""
    heads_per_sentence: int = Field(ge=1)
    """Heads k of each attention that a sentence has."""
    balance_weight: float = Field(0.01, ge=0)
    """Weight of the term that makes sentences use all heads equally often."""
    d_head: int | None = Field(None, ge=1)
    """Width K of a head; d_model / n_heads when left out."""
    d_ff: int = Field(2048, ge=1)
    """Width of the feed-forward layer."""
    encoder_layers: int = Field(6, ge=1)
    """Layers of the encoder stack."""
    decoder_layers: int = Field(6, ge=1)
    """Layers of the decoder stack."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """On each sublayer's output and on the sums of embeddings and positions."""
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    """On attention weights."""
    activation_dropout: float = Field(0.0, ge=0, lt=1)
    """Within the feed-forward layer."""
    word_dropout: WordDropoutConfig = WordDropoutConfig()
    """Whole words that are hidden from encoder and decoder."""
    norm: Literal["pre", "post"] = "post"
    """Normalise each sublayer's input (steadier) or the residual sum."""
    norm_kind: Literal["layer", "rms"] = "layer"
    """Layer normalisation or RMS normalisation."""
    activation: Literal["relu", "gelu", "swiglu"] = "relu"
    """Of the feed-forward layer."""
    positions: Literal["sinusoidal", "learned", "none"] = "sinusoidal"
    """Position embeddings; rotary ones are for `transformer` only."""
    max_length: int | None = Field(None, ge=2)
    """Positions of a learned table; the others have no limit."""
    tie_embeddings: Literal["auto", "all", "decoder", "none"] = "auto"
    """Share weights of source, target and output (all), of target and output (decoder);
    `auto`: all with a joint vocabulary, else decoder."""
    scale_embeddings: bool = True
    """Multiply embeddings by sqrt(d_model)."""

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.d_head is None and self.d_model % self.n_heads:
            raise ValueError(
                f"d_model ({self.d_model}) is not divisible by n_heads ({self.n_heads})"
            )
        if self.heads_per_sentence > self.n_heads:
            raise ValueError(
                f"heads_per_sentence ({self.heads_per_sentence}) is more than "
                f"n_heads ({self.n_heads})"
            )
        if self.positions == "learned" and self.max_length is None:
            raise ValueError("positions: learned needs max_length, the size of its table")
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"d_model ({self.d_model}) must be even for sinusoidal positions")
        return self


def _attention(config: Config) -> MixtureOfHeadsAttention:
    width = config.d_head or config.d_model // config.n_heads
    return MixtureOfHeadsAttention(config.d_model, config.n_heads, config.attention_dropout, width)


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self_attention = _attention(config)
        self.feed_forward = feed_forward(config)
        self.sublayers = nn.ModuleList([Sublayer(config) for _ in range(2)])

    def forward(self, x: Tensor, valid: Tensor, selection: HeadSelection) -> Tensor:
        """x [B, S, D], valid [B, S] -> [B, S, D]."""
        own = self.self_attention
        x = self.sublayers[0](x, lambda y: own.attend_self(y, valid, False, selection))
        x = self.sublayers[1](x, self.feed_forward)
        return x


class DecoderLayer(nn.Module):
    """Masked self-attention, cross-attention, feed-forward."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self_attention = _attention(config)
        self.cross_attention = _attention(config)
        self.feed_forward = feed_forward(config)
        self.sublayers = nn.ModuleList([Sublayer(config) for _ in range(3)])

    def forward(self, x: Tensor, memory: Tensor, valid: Tensor, selections: Selections) -> Tensor:
        """All positions at once, as in training: x [B, T, D], memory [B, S, D]."""
        own, cross = self.self_attention, self.cross_attention
        source = cross.keys_values(memory, selections[1])
        x = self.sublayers[0](x, lambda y: own.attend_self(y, None, True, selections[0]))
        x = self.sublayers[1](x, lambda y: cross(y, source, valid, selections[1]))
        x = self.sublayers[2](x, self.feed_forward)
        return x

    def extend(self, x: Tensor, cache: MixtureOfHeadsCache, layer: int) -> Tensor:
        """New positions only, as in decoding: x [B*N, t, D]."""
        own, cross = self.self_attention, self.cross_attention
        x = self.sublayers[0](x, lambda y: own.attend_cached(y, cache, layer))
        x = self.sublayers[1](x, lambda y: cross.attend_source(y, cache, layer))
        x = self.sublayers[2](x, self.feed_forward)
        return x


class MixtureOfHeads(nn.Module):
    """Encoder and decoder stacks, each with a router, embeddings and positions."""

    waits = True
    """A pass synchronises with the device to read how many sentences selected a head."""

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
        words = config.word_dropout
        self.source_words = WordDropout(words.source, words.by)
        self.target_words = WordDropout(words.target, words.by)
        encoder = [EncoderLayer(config) for _ in range(config.encoder_layers)]
        decoder = [DecoderLayer(config) for _ in range(config.decoder_layers)]
        self.encoder, self.decoder = nn.ModuleList(encoder), nn.ModuleList(decoder)
        final = config.norm == "pre"  # the residual stream itself was never normalised
        self.encoder_norm = norm(config.norm_kind, config.d_model) if final else nn.Identity()
        self.decoder_norm = norm(config.norm_kind, config.d_model) if final else nn.Identity()
        for layer in encoder:
            keep_fp32(layer.self_attention)
        heads = config.n_heads, config.heads_per_sentence
        self.encoder_router = HeadRouter(config.d_model, len(encoder), *heads)
        self.decoder_router = HeadRouter(config.d_model, 2 * len(decoder), *heads)
        initialise(self)

    def encode(self, source: Tensor) -> Memory:
        """Source ids [B, S] to memory [B, S, D]."""
        valid = source != PAD  # [B, S]
        table = self.source_embedding or self.target_embedding
        x = self.source_words(table, source) * self.scale  # [B, S, D]
        x = self.drop(self.source_positions(x))
        for layer, selection in zip(self.encoder, self.encoder_router(x, valid), strict=True):
            x = layer(x, valid, selection)
        return Memory(self.encoder_norm(x), valid)

    def start(self, memory: Memory, beams: int, max_length: int) -> Cache:
        """A cache for `max_length` tokens; heads, keys and values of the source computed once."""
        selections = self._select_heads(memory)
        source = [
            cast(DecoderLayer, layer).cross_attention.keys_values(memory.states, cross)
            for layer, (_, cross) in zip(self.decoder, selections, strict=True)
        ]
        return MixtureOfHeadsCache(selections, source, memory.valid, beams, max_length)

    def decode(self, target: Tensor, memory: Memory, cache: Cache | None = None) -> Tensor:
        """Hidden states [B, T, D] of target inputs [B, T]; with a cache, of the new ones only."""
        known = cast(MixtureOfHeadsCache, cache).length if cache is not None else 0
        x = self.target_words(self.target_embedding, target) * self.scale  # [B, T, D]
        x = self.drop(self.target_positions(x, known))
        if cache is None:
            for layer, selections in zip(self.decoder, self._select_heads(memory), strict=True):
                x = layer(x, memory.states, memory.valid, selections)
        else:
            kept = cast(MixtureOfHeadsCache, cache)
            for number, layer in enumerate(self.decoder):
                x = cast(DecoderLayer, layer).extend(x, kept, number)
            kept.advance(*target.shape)
        hidden: Tensor = self.decoder_norm(x)
        return hidden

    def _select_heads(self, memory: Memory) -> list[Selections]:
        """The heads of each decoder layer."""
        selected = iter(self.decoder_router(memory.states, memory.valid))
        return list(zip(selected, selected, strict=True))

    def attention(self, source: Tensor, target: Tensor) -> Tensor:
        """See `mt.transformer_layers.alignment`."""
        return alignment(self, source, target)

    def attentions(self, source: Tensor, target: Tensor) -> Mapping[str, Sequence[Tensor]]:
        """See `mt.transformer_layers.attention_maps`; H is k."""
        return attention_maps(self, source, target)

    def output(self) -> tuple[Tensor, Tensor | None]:
        """The projection weight [V, D] and its bias: logits = hidden W^T + b."""
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


def build(config: Config, vocabulary: Vocabulary) -> MixtureOfHeads:
    """The model, its weights drawn from torch's generator.

    Raises:
        ConfigError: the embeddings cannot be shared because the vocabulary is not joint.
    """
    tie = shared_embeddings(config.tie_embeddings, vocabulary.joint)
    return MixtureOfHeads(config, vocabulary.source_size, vocabulary.target_size, tie)
