"""A Transformer in which a router selects k heads of each attention for each sentence.

The other parts are those of `transformer`. See `modules/mixture_of_heads.py` for the attention.

Legend: B sentences, N beams, S source length, T target length, D model width, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from pydantic import Field, model_validator
from torch import Tensor, nn

from mt.config.section import MAX_FACTOR, MAX_WIDTH
from mt.interfaces import Cache, Memory
from mt.models.modules.embedding import shared_embeddings
from mt.models.modules.linear import keep_fp32
from mt.models.modules.mixture_of_heads import (
    HeadRouter,
    HeadSelection,
    MixtureOfHeadsAttention,
    MixtureOfHeadsCache,
)
from mt.models.modules.transformer_layers import (
    Sublayer,
    TransformerConfig,
    TransformerStacks,
    feed_forward,
    initialise,
)

if TYPE_CHECKING:
    from mt.vocabulary.vocabulary import Vocabulary

Selections = tuple[HeadSelection, HeadSelection]
"""Of the self-attention and of the cross-attention of a decoder layer."""


class Config(TransformerConfig):
    """Sizes and options of a mixture of heads; those of `transformer` have its defaults."""

    kind: str = "mixture_of_heads"
    heads_per_sentence: int = Field(ge=1, le=MAX_WIDTH)
    """Heads k of each attention that a sentence has."""
    balance_weight: float = Field(0.01, ge=0, le=MAX_FACTOR)
    """Weight of the term that makes sentences use all heads equally often."""
    positions: Literal["sinusoidal", "learned", "none"] = "sinusoidal"
    """Position embeddings; rotary ones are for `transformer` only."""

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.heads_per_sentence > self.n_heads:
            raise ValueError(
                f"heads_per_sentence ({self.heads_per_sentence}) is more than "
                f"n_heads ({self.n_heads})"
            )
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


class MixtureOfHeads(TransformerStacks):
    """Encoder and decoder stacks, each with a router, embeddings and positions."""

    syncs_device = True
    """A pass synchronises with the device to read how many sentences selected a head."""

    def __init__(self, config: Config, source_size: int, target_size: int, tie: str) -> None:
        super().__init__(
            config, source_size, target_size, tie,
            (EncoderLayer(config) for _ in range(config.encoder_layers)),
            (DecoderLayer(config) for _ in range(config.decoder_layers)),
        )  # fmt: skip
        for layer in self.encoder:
            keep_fp32(cast(EncoderLayer, layer).self_attention)
        heads = config.n_heads, config.heads_per_sentence
        self.encoder_router = HeadRouter(config.d_model, config.encoder_layers, *heads)
        self.decoder_router = HeadRouter(config.d_model, 2 * config.decoder_layers, *heads)
        initialise(self)

    def encode(self, source: Tensor) -> Memory:
        """Source ids [B, S] to memory [B, S, D]."""
        x, valid = self.embed_source(source)
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
        past = cast(MixtureOfHeadsCache | None, cache)
        x = self.embed_target(target, 0 if past is None else past.length)
        if past is None:
            for layer, selections in zip(self.decoder, self._select_heads(memory), strict=True):
                x = layer(x, memory.states, memory.valid, selections)
        else:
            for number, layer in enumerate(self.decoder):
                x = cast(DecoderLayer, layer).extend(x, past, number)
            past.advance(*target.shape)
        hidden: Tensor = self.decoder_norm(x)
        return hidden

    def _select_heads(self, memory: Memory) -> list[Selections]:
        """The heads of each decoder layer."""
        selected = iter(self.decoder_router(memory.states, memory.valid))
        return list(zip(selected, selected, strict=True))


def build(config: Config, vocabulary: Vocabulary) -> MixtureOfHeads:
    """Build the model; its weights come from torch's generator.

    Raises:
        ConfigError: the embeddings cannot be shared because the vocabulary is not joint.
    """
    tie = shared_embeddings(config.tie_embeddings, vocabulary.joint)
    return MixtureOfHeads(config, vocabulary.source_size, vocabulary.target_size, tie)
