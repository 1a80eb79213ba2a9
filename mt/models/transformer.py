"""The Transformer of "Attention Is All You Need" (Vaswani et al. 2017), in the paper's order.

Legend: B sentences, N beams, S source length, T target length, D model width, V vocabulary.
Its options are those that CTranslate2's TransformerSpec expresses.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar, cast

from pydantic import Field, model_validator
from torch import Tensor, nn

from mt.config.section import MAX_WIDTH, Section
from mt.interfaces import Cache, Memory
from mt.models.modules.embedding import shared_embeddings
from mt.models.modules.head_gates import Config as HeadGates
from mt.models.modules.head_gates import HardConcrete
from mt.models.modules.kv_cache import KeyValueCache
from mt.models.modules.layers import MultiHeadAttention, SelfAttention
from mt.models.modules.linear import keep_fp32
from mt.models.modules.positions import Rotary
from mt.models.modules.transformer_layers import (
    Sublayer,
    TransformerConfig,
    TransformerStacks,
    feed_forward,
    initialise,
)

if TYPE_CHECKING:
    from mt.vocabulary.vocabulary import Vocabulary

Heads = Annotated[int, Field(ge=1, le=MAX_WIDTH)]


class LayerHeads(Section):
    """The number of heads of each layer, from the first on."""

    encoder: tuple[Heads, ...] = Field(strict=False)
    """Of the encoder's self-attention."""
    decoder: tuple[Heads, ...] = Field(strict=False)
    """Of the decoder's self-attention."""
    cross: tuple[Heads, ...] = Field(strict=False)
    """Of the decoder's attention to the source."""


class Config(TransformerConfig):
    """Sizes and options of a Transformer; the defaults are the paper's base model (table 3)."""

    kind: str = "transformer"
    layer_heads: LayerHeads | None = None
    """Numbers of heads that differ between layers, as after `mt prune --uneven`."""
    scale_attention: bool = True
    """Divide the products of queries and keys by the square root of a head's width (section
    3.2.1); false is an experiment, and cannot be exported."""
    head_gates: HeadGates | None = None
    """Learn which heads can be removed; see docs/compression.md."""

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.layer_heads is not None:
            for part in ("encoder", "decoder", "cross"):
                layers = self.encoder_layers if part == "encoder" else self.decoder_layers
                count = len(getattr(self.layer_heads, part))
                if count != layers:
                    raise ValueError(f"layer_heads.{part} tells {count} of {layers} layers")
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(
                f"a head's width (d_head, else d_model / n_heads: {self.head_width}) must be even "
                "for rotary positions"
            )
        return self

    @property
    def head_width(self) -> int:
        """K."""
        return self.d_head or self.d_model // self.n_heads

    def heads(self, part: Literal["encoder", "decoder", "cross"]) -> tuple[int, ...]:
        """The number of heads of each layer in the encoder's, the decoder's or cross-attention."""
        if self.layer_heads is not None:
            heads: tuple[int, ...] = getattr(self.layer_heads, part)
            return heads
        return (self.n_heads,) * (self.encoder_layers if part == "encoder" else self.decoder_layers)


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward (section 3.1, figure 1 left)."""

    def __init__(self, config: Config, heads: int) -> None:
        super().__init__()
        self.self_attention = _attention(SelfAttention, config, heads)
        self.feed_forward = feed_forward(config)
        self.sublayers = nn.ModuleList([Sublayer(config) for _ in range(2)])

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """x [B, S, D], valid [B, S] -> [B, S, D]."""
        own = self.self_attention
        x = self.sublayers[0](x, lambda y: own.attend_self(y, valid, False))
        x = self.sublayers[1](x, self.feed_forward)
        return x


class DecoderLayer(nn.Module):
    """Masked self-attention, cross-attention, feed-forward (section 3.1, figure 1 right)."""

    def __init__(self, config: Config, heads: int, cross_heads: int) -> None:
        super().__init__()
        self.self_attention = _attention(SelfAttention, config, heads)
        self.cross_attention = _attention(MultiHeadAttention, config, cross_heads)
        self.feed_forward = feed_forward(config)
        self.sublayers = nn.ModuleList([Sublayer(config) for _ in range(3)])

    def forward(self, x: Tensor, memory: Tensor, valid: Tensor | None) -> Tensor:
        """All positions at once, as in training: x [B, T, D], memory [B, S, D]."""
        own, cross = self.self_attention, self.cross_attention
        source = cross.keys_values(memory)
        x = self.sublayers[0](x, lambda y: own.attend_self(y, None, True))
        x = self.sublayers[1](x, lambda y: cross(y, source, valid))
        x = self.sublayers[2](x, self.feed_forward)
        return x

    def extend(self, x: Tensor, cache: KeyValueCache, layer: int) -> Tensor:
        """New positions only, as in decoding: x [B*N, t, D]."""
        own, cross = self.self_attention, self.cross_attention
        x = self.sublayers[0](x, lambda y: own.attend_cached(y, cache, layer))
        x = self.sublayers[1](x, lambda y: cross.attend_source(y, cache, layer))
        x = self.sublayers[2](x, self.feed_forward)
        return x


A = TypeVar("A", bound=MultiHeadAttention)


def _attention(kind: type[A], config: Config, heads: int) -> A:
    attention = kind(config.d_model, heads, config.attention_dropout, config.head_width)
    if config.head_gates is not None:
        attention.gates = HardConcrete(heads)
    return attention


class Transformer(TransformerStacks):
    """Encoder and decoder stacks, embeddings and positions (sections 3.1 to 3.5)."""

    def __init__(self, config: Config, source_size: int, target_size: int, tie: str) -> None:
        both = zip(config.heads("decoder"), config.heads("cross"), strict=True)
        super().__init__(
            config, source_size, target_size, tie,
            (EncoderLayer(config, heads) for heads in config.heads("encoder")),
            (DecoderLayer(config, heads, cross) for heads, cross in both),
        )  # fmt: skip
        if not config.scale_attention:
            for module in self.modules():
                if isinstance(module, MultiHeadAttention):
                    module.sharpness = math.sqrt(config.head_width)
        if config.positions == "rotary":
            rotary = Rotary(config.head_width, config.max_length or 1024)
            for layer in [*self.encoder, *self.decoder]:
                cast(EncoderLayer | DecoderLayer, layer).self_attention.rotary = rotary
        for layer in self.encoder:
            keep_fp32(cast(EncoderLayer, layer).self_attention)
        for layer in self._decoder_layers():
            keep_fp32(layer.cross_attention.key_value)
        initialise(self)

    def _decoder_layers(self) -> list[DecoderLayer]:
        return [cast(DecoderLayer, layer) for layer in self.decoder]

    def encode(self, source: Tensor) -> Memory:
        """Source ids [B, S] to memory [B, S, D]."""
        x, valid = self.embed_source(source)
        for layer in self.encoder:
            x = layer(x, valid)
        return Memory(self.encoder_norm(x), valid)

    def start(self, memory: Memory, beams: int, max_length: int) -> Cache:
        """A cache for `max_length` tokens; the source's keys and values computed once."""
        heads = [layer.self_attention.n_heads for layer in self._decoder_layers()]
        source = self.keys_values(memory, max_length)
        return KeyValueCache(source, memory.valid, beams, max_length, heads)

    @property
    def uniform_heads(self) -> bool:
        """Whether all decoder layers have the same number of heads."""
        parts = [(x.self_attention, x.cross_attention) for x in self._decoder_layers()]
        return len({part.n_heads for pair in parts for part in pair}) == 1

    def keys_values(self, memory: Memory, positions: int) -> list[tuple[Tensor, Tensor]]:
        """The source's keys and values [B, H, S, K] of each decoder layer."""
        self.target_positions.reserve(positions)
        layers = self._decoder_layers()
        if layers[0].self_attention.rotary is not None:
            layers[0].self_attention.rotary.reserve(positions)
        return [layer.cross_attention.keys_values(memory.states) for layer in layers]

    def decode(self, target: Tensor, memory: Memory, cache: Cache | None = None) -> Tensor:
        """Hidden states [B, T, D] of target inputs [B, T]; with a cache, of the new ones only."""
        past = cast(KeyValueCache | None, cache)
        x = self.embed_target(target, 0 if past is None else past.length)
        if past is None:
            for layer in self.decoder:
                x = layer(x, memory.states, memory.valid)
        else:
            for number, layer in enumerate(self._decoder_layers()):
                x = layer.extend(x, past, number)
            past.advance(*target.shape)
        hidden: Tensor = self.decoder_norm(x)
        return hidden


def build(config: Config, vocabulary: Vocabulary) -> Transformer:
    """Build the model; its weights come from torch's generator.

    Raises:
        ConfigError: the embeddings cannot be shared because the vocabulary is not joint.
    """
    tie = shared_embeddings(config.tie_embeddings, vocabulary.joint)
    return Transformer(config, vocabulary.source_size, vocabulary.target_size, tie)
