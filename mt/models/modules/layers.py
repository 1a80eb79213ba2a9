"""Layers of the Transformer: multi-head attention, feed-forward, normalisation.

Legend: B sentences, T queries, S keys, D model width, H heads, K head width, F feed-forward.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mt.models.modules.attention import attend, attention_weights, byte_dropout
from mt.models.modules.head_gates import HardConcrete
from mt.models.modules.kv_cache import KeyValueCache
from mt.models.modules.linear import Linear, PrepackedWeight
from mt.models.modules.positions import Rotary


class Dropout(nn.Module):
    """Dropout (section 5.4), by `attention.byte_dropout`."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return byte_dropout(x, self.probability) if self.training else x


class RecordedAttention(nn.Module):
    """An attention whose weights can be recorded; see `record_attention`."""

    dropout: float
    """Probability of dropping a weight in training."""
    recorded_weights: list[Tensor] | None = None
    """A list here receives the weights [B, H, T, S] of each call."""

    def _attend(
        self, query: Tensor, keys_values: tuple[Tensor, Tensor], valid: Tensor | None, causal: bool
    ) -> Tensor:
        key, value = keys_values
        if self.recorded_weights is not None:
            # In the type of `attend` on a CPU; packed parts may differ in their types.
            wide = torch.promote_types(torch.promote_types(query.dtype, key.dtype), torch.float32)
            weights = attention_weights(query.to(wide), key.to(wide), valid, causal)
            self.recorded_weights.append(weights)
        return attend(query, key, value, valid, causal, self.dropout if self.training else 0.0)


class MultiHeadAttention(RecordedAttention):
    """MultiHead(Q, K, V) = Concat(head_1 .. head_H) W^O (section 3.2.2)."""

    sharpness = 1.0
    """A factor of the queries; sqrt(K) undoes the scaling of their products with keys."""

    def __init__(
        self, d_model: int, n_heads: int, dropout: float, d_head: int | None = None
    ) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        width = n_heads * (d_head or d_model // n_heads)  # H*K; not D in pruned models
        self.query = Linear(d_model, width)
        self.key_value = Linear(d_model, 2 * width)
        self.output = Linear(width, d_model)
        self.rotary: Rotary | None = None
        """Rotates queries and keys of self-attention by their positions."""
        self.mask: Tensor | None = None
        """[H] or [B, H], multiplies the output of each head; pruning measures it."""
        self.gates: HardConcrete | None = None
        """[H], multiplies it, too; training may close a gate."""

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, each [B, H, S, K], of a memory [B, S, D]."""
        key, value = self.key_value(memory).chunk(2, dim=-1)
        return self._split(key), self._split(value)

    def forward(
        self, x: Tensor, keys_values: tuple[Tensor, Tensor], valid: Tensor | None
    ) -> Tensor:
        """Attend from x [B, T, D] to keys and values [B, H, S, K]."""
        query = self._split(self._scale(self.query(x)))
        return self._merge(self._attend(query, keys_values, valid, False))

    def attend_source(self, x: Tensor, cache: KeyValueCache, layer: int) -> Tensor:
        """Attend from new positions x [R, t, D] to the source in the cache."""
        query = self._scale(self.query(x))
        return self._project_out(cache.attend_source(layer, self._heads(query)))

    def _scale(self, query: Tensor) -> Tensor:
        return query if self.sharpness == 1 else query * self.sharpness

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1))  # [B, T, H*K] -> [B, T, H, K]

    def _split(self, x: Tensor) -> Tensor:
        return self._heads(x).transpose(1, 2)  # [B, T, H*K] -> [B, H, T, K]

    def _merge(self, heads: Tensor) -> Tensor:
        return self._project_out(heads.transpose(1, 2).flatten(2))  # [B, H, T, K] -> [B, T, D]

    def _project_out(self, mixed: Tensor) -> Tensor:
        """The output projection of the heads, [B, T, H*K] -> [B, T, D]."""
        for mask in (self.mask, None if self.gates is None else self.gates()):
            if mask is not None:
                factor = mask if mask.dim() == 1 else mask[:, None]  # [.., H]
                mixed = (self._heads(mixed) * factor[..., None].to(mixed.dtype)).flatten(-2)
        merged: Tensor = self.output(mixed)
        return merged


class SelfAttention(MultiHeadAttention):
    """Attention of a sequence to itself, cached when decoding."""

    packed: PrepackedWeight | None = None
    """Query, key and value as one product."""
    keep_fp32 = False
    """See `linear.keep_fp32`."""

    def pack(self, dtype: torch.dtype | None) -> None:
        """See `linear.pack`."""
        self.packed = None
        if dtype is not None:
            parts = (self.query, self.key_value)
            weight, bias = (torch.cat([getattr(p, n) for p in parts]) for n in ("weight", "bias"))
            self.packed = PrepackedWeight(weight, bias, dtype)

    def attend_self(self, x: Tensor, valid: Tensor | None, causal: bool) -> Tensor:
        """All positions [B, T, D] at once."""
        query, key, value = map(self._split, self._project(x))
        return self._merge(self._attend(query, (key, value), valid, causal))

    def attend_cached(self, x: Tensor, cache: KeyValueCache, layer: int) -> Tensor:
        """New positions [R, t, D] after those in the cache."""
        query, key, value = map(self._heads, self._project(x, cache.length))
        return self._project_out(cache.attend(layer, query, key, value))

    def _project(self, x: Tensor, start: int | Tensor = 0) -> tuple[Tensor, ...]:
        """Query, key and value, each [B, T, H*K], of positions from `start` on."""
        if self.packed is not None and not torch.is_grad_enabled():
            query, key, value = self.packed(x).chunk(3, dim=-1)
        else:
            query, (key, value) = self.query(x), self.key_value(x).chunk(2, dim=-1)
        if self.rotary is not None:
            query, key = self.rotary(query, start), self.rotary(key, start)
        return self._scale(query), key, value


@contextmanager
def record_attention(parts: Iterable[Any]) -> Iterator[list[Tensor]]:
    """Record the attention weights [B, H, T, S] of each call of `parts`, in their order."""
    recorded, weights = list(parts), list[Tensor]()
    for part in recorded:
        part.recorded_weights = weights
    try:
        yield weights
    finally:
        for part in recorded:
            part.recorded_weights = None


class FeedForward(nn.Module):
    """FFN(x) = max(0, x W1 + b1) W2 + b2 (section 3.3), or GELU, or SwiGLU (Shazeer 2020)."""

    def __init__(
        self, d_model: int, d_ff: int, dropout: float,
        activation: Literal["relu", "gelu", "swiglu"],
    ) -> None:  # fmt: skip
        super().__init__()
        self.activation = activation
        self.inner = Linear(d_model, d_ff)
        self.gate = Linear(d_model, d_ff) if activation == "swiglu" else None
        self.outer = Linear(d_ff, d_model)
        self.drop = Dropout(dropout)
        self.mask: Tensor | None = None
        """[F] or [B, 1, F], multiplies the columns; pruning measures it."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, F] -> [B, T, D]."""
        if self.gate is not None:
            inner = F.silu(self.gate(x)) * self.inner(x)
        else:
            relu = self.activation == "relu"
            inner = self.inner.relu(x) if relu else F.gelu(self.inner(x))
        if self.mask is not None:
            inner = inner * self.mask.to(inner.dtype)
        outer: Tensor = self.outer(self.drop(inner))
        return outer


def norm(kind: Literal["layer", "rms"], d_model: int) -> nn.Module:
    """Layer normalisation (Ba et al. 2016) or RMS normalisation (Zhang and Sennrich 2019)."""
    return nn.LayerNorm(d_model, eps=1e-5) if kind == "layer" else nn.RMSNorm(d_model, eps=1e-5)
