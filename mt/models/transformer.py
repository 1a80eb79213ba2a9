"""The Transformer of "Attention Is All You Need" (Vaswani et al. 2017), in the paper's order.

Legend: B sentences, N beams, S source length, T target length, D model width, V vocabulary.
It stays within what CTranslate2's TransformerSpec expresses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar, cast

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from mt.config.section import Section, Variant
from mt.interfaces import Cache, Memory
from mt.models.modules.embedding import WordDropout, WordDropoutConfig, shared_embeddings
from mt.models.modules.head_gates import Config as HeadGates
from mt.models.modules.head_gates import HardConcrete
from mt.models.modules.kv_cache import KeyValueCache
from mt.models.modules.layers import Dropout, MultiHeadAttention, SelfAttention, norm
from mt.models.modules.linear import keep_fp32
from mt.models.modules.positions import Positions, Rotary
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

Heads = Annotated[int, Field(ge=1)]


class LayerHeads(Section):
    """How many heads each layer has, the first layer's first."""

    encoder: tuple[Heads, ...] = Field(strict=False)
    """Of the encoder's self-attention."""
    decoder: tuple[Heads, ...] = Field(strict=False)
    """Of the decoder's self-attention."""
    cross: tuple[Heads, ...] = Field(strict=False)
    """Of the decoder's attention to the source."""


class Config(Variant):
    """Sizes and options of a Transformer; the defaults are the paper's base model (table 3)."""

    kind: str = "transformer"
    d_model: int = Field(512, ge=2)
    """Width D of the residual stream."""
    n_heads: int = Field(8, ge=1)
    """Attention heads H."""
    d_head: int | None = Field(None, ge=1)
    """Width K of a head; d_model / n_heads when left out. Pruned models have their own."""
    layer_heads: LayerHeads | None = None
    """Other numbers of heads in each layer, as `mt prune --uneven` leaves them."""
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
    word_dropout: WordDropoutConfig = WordDropoutConfig()
    """Whole words that are hidden from encoder and decoder."""
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
    scale_attention: bool = True
    """Divide the products of queries and keys by the square root of a head's width (section
    3.2.1); false, an experiment, leaves them as they are, and cannot be exported."""
    scale_embeddings: bool = True
    """Multiply embeddings by sqrt(d_model) (section 3.4)."""
    head_gates: HeadGates | None = None
    """Learn which heads can go; see docs/compression.md."""

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.d_head is None and self.d_model % self.n_heads:
            raise ValueError(
                f"d_model ({self.d_model}) is not divisible by n_heads ({self.n_heads})"
            )
        if self.layer_heads is not None:
            for part in ("encoder", "decoder", "cross"):
                layers = self.encoder_layers if part == "encoder" else self.decoder_layers
                told = len(getattr(self.layer_heads, part))
                if told != layers:
                    raise ValueError(f"layer_heads.{part} tells {told} of {layers} layers")
        if self.positions == "learned" and self.max_length is None:
            raise ValueError("positions: learned needs max_length, the size of its table")
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"d_model ({self.d_model}) must be even for sinusoidal positions")
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
        """How many heads each layer has in the encoder's, the decoder's or cross-attention."""
        if self.layer_heads is not None:
            told: tuple[int, ...] = getattr(self.layer_heads, part)
            return told
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
    """Build an attention of that kind, with the gates of the config."""
    made = kind(config.d_model, heads, config.attention_dropout, config.head_width)
    if config.head_gates is not None:
        made.gates = HardConcrete(heads)
    return made


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
        words = config.word_dropout
        self.source_words = WordDropout(words.source, words.by)
        self.target_words = WordDropout(words.target, words.by)
        self.encoder = nn.ModuleList([EncoderLayer(config, n) for n in config.heads("encoder")])
        both = zip(config.heads("decoder"), config.heads("cross"), strict=True)
        self.decoder = nn.ModuleList([DecoderLayer(config, n, cross) for n, cross in both])
        final = config.norm == "pre"  # the residual stream itself was never normalised
        self.encoder_norm = norm(config.norm_kind, config.d_model) if final else nn.Identity()
        self.decoder_norm = norm(config.norm_kind, config.d_model) if final else nn.Identity()
        if not config.scale_attention:
            for module in self.modules():
                if isinstance(module, MultiHeadAttention):
                    module.sharpness = math.sqrt(config.head_width)
        if config.positions == "rotary":
            rotary = Rotary(config.head_width, length)
            for layer in [*self.encoder, *self.decoder]:
                cast(EncoderLayer | DecoderLayer, layer).self_attention.rotary = rotary
        for layer in self.encoder:
            keep_fp32(cast(EncoderLayer, layer).self_attention)
        for layer in self.decoder:
            keep_fp32(cast(DecoderLayer, layer).cross_attention.key_value)
        initialise(self)

    def encode(self, source: Tensor) -> Memory:
        """Source ids [B, S] to memory [B, S, D]."""
        valid = source != PAD  # [B, S]
        table = self.source_embedding or self.target_embedding
        x = self.source_words(table, source) * self.scale  # [B, S, D]
        x = self.drop(self.source_positions(x))
        for layer in self.encoder:
            x = layer(x, valid)
        return Memory(self.encoder_norm(x), valid)

    def start(self, memory: Memory, beams: int, max_length: int) -> Cache:
        """A cache for `max_length` tokens; the source's keys and values computed once."""
        heads = [cast(DecoderLayer, layer).self_attention.n_heads for layer in self.decoder]
        source = self.keys_values(memory, max_length)
        return KeyValueCache(source, memory.valid, beams, max_length, heads)

    @property
    def alike(self) -> bool:
        """Whether all decoder layers have the same number of heads."""
        layers = [cast(DecoderLayer, layer) for layer in self.decoder]
        heads = {n for x in layers for n in (x.self_attention.n_heads, x.cross_attention.n_heads)}
        return len(heads) == 1

    def keys_values(self, memory: Memory, positions: int) -> list[tuple[Tensor, Tensor]]:
        """The source's keys and values [B, H, S, K] of each decoder layer."""
        self.target_positions.reserve(positions)
        rotary = getattr(cast(DecoderLayer, self.decoder[0]).self_attention, "rotary", None)
        if rotary is not None:
            rotary.reserve(positions)
        layers = [cast(DecoderLayer, layer) for layer in self.decoder]
        return [layer.cross_attention.keys_values(memory.states) for layer in layers]

    def decode(self, target: Tensor, memory: Memory, cache: Cache | None = None) -> Tensor:
        """Hidden states [B, T, D] of target inputs [B, T]; with a cache, of the new ones only."""
        known = cast(KeyValueCache, cache).length if cache is not None else 0
        x = self.target_words(self.target_embedding, target) * self.scale  # [B, T, D]
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
        """See `mt.transformer_layers.alignment`."""
        return alignment(self, source, target)

    def attentions(self, source: Tensor, target: Tensor) -> Mapping[str, Sequence[Tensor]]:
        """See `mt.transformer_layers.attention_maps`."""
        return attention_maps(self, source, target)

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


def build(config: Config, vocabulary: Vocabulary) -> Transformer:
    """The model, its weights drawn from torch's generator.

    Raises:
        ConfigError: the embeddings cannot be shared because the vocabulary is not joint.
    """
    tie = shared_embeddings(config.tie_embeddings, vocabulary.joint)
    return Transformer(config, vocabulary.source_size, vocabulary.target_size, tie)
