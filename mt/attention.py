"""Scaled dot-product attention and the key/value cache: the only file that names a kernel.

Legend: B sentences, N beams, R rows (B, or B*N when decoding), H heads, T queries, S keys,
K head width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def attend(
    query: Tensor, key: Tensor, value: Tensor,
    valid: Tensor | None = None, causal: bool = False, dropout: float = 0.0,
) -> Tensor:  # fmt: skip
    """softmax(Q K^T / sqrt(K)) V (section 3.2.1, equation 1).

    Padding stands to the right, so a causal query never sees any: `causal` needs no `valid`.
    The T causal queries are the last T of the S positions, as when the others are cached.

    Args:
        query: [R, H, T, K].
        key, value: [R, H, S, K].
        valid: [R, S] bool, False where a key is padding.
        causal: query t sees keys 0 to S - T + t only.
        dropout: probability of dropping a weight.

    Returns:
        [R, H, T, K].
    """
    if query.device.type == "cpu" and not torch.compiler.is_compiling():
        return _attend_plainly(query, key, value, valid, causal, dropout)
    mask = None if valid is None else valid[:, None, None, :]  # [R, 1, 1, S]
    if query.size(2) == 1:  # the last query sees every key
        causal = False
    # Conditions on sizes stay out of what the kernel is given: torch.compile would stop there.
    if causal and (mask is not None or query.size(2) != key.size(2)):
        seen = ~_future(query.size(2), key.size(2), query.device)
        mask, causal = seen if mask is None else seen & mask, False
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal
    )


def _attend_plainly(
    query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None, causal: bool, dropout: float
) -> Tensor:
    """Attention in parts, fp32 at least: of sentences, a CPU's own kernel takes times as long.

    Products of few rows gain little by bf16, where each new size costs a kernel (see `linear`).
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    if valid is not None and bool(valid.all()):
        valid = None
    with torch.autocast("cpu", enabled=False):
        # The products want heads apart: one copy to that end and to the other type.
        q, k, v = (t.to(wide, memory_format=torch.contiguous_format) for t in (query, key, value))
        return (drop(weights(q, k, valid, causal), dropout) @ v).to(query.dtype)


def _future(queries: int, keys: int, device: torch.device) -> Tensor:
    """[T, S] bool, True where a key lies after the query."""
    every = torch.ones(queries, keys, dtype=torch.bool, device=device)
    return every.triu(keys - queries + 1)


def weights(
    query: Tensor, key: Tensor, valid: Tensor | None = None, causal: bool = False
) -> Tensor:
    """The attention weights [R, H, T, S] themselves: rows sum to 1. See `attend`."""
    scores = (query / math.sqrt(query.size(-1))) @ key.transpose(-2, -1)  # [R, H, T, S]
    if valid is not None:
        scores = scores.masked_fill_(~valid[:, None, None, :], -math.inf)
    if causal and query.size(2) > 1:
        future = _future(query.size(2), key.size(2), query.device)
        scores = scores.masked_fill_(future, -math.inf)
    return scores.softmax(-1)


class _ByteDropout(torch.autograd.Function):
    """Dropout whose randomness is one byte an element: several times faster on a CPU."""

    @staticmethod
    def forward(ctx, x: Tensor, threshold: int) -> Tensor:  # type: ignore[no-untyped-def]
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape).ge_(threshold)  # 0 or 1
        ctx.save_for_backward(kept)
        ctx.scale = 256 / (256 - threshold)
        return (x * kept).mul_(ctx.scale)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        (kept,) = ctx.saved_tensors
        return (gradient * kept).mul_(ctx.scale), None


def drop(x: Tensor, probability: float) -> Tensor:
    """Zero elements with `probability` and scale the rest up (section 5.4), in training only.

    On a CPU the probability is rounded to 1/256, the scale follows it.
    """
    if probability == 0:
        return x
    threshold = round(probability * 256)
    if x.device.type != "cpu" or torch.compiler.is_compiling() or not 0 < threshold < 256:
        return F.dropout(x, probability)
    dropped: Tensor = _ByteDropout.apply(x, threshold)  # type: ignore[no-untyped-call]
    return dropped


class KeyValueCache:
    """Keys and values of what was decoded (one row a beam) and of the source (one a sentence).

    Everything is allocated at the start, for `max_length` tokens; nothing grows.
    """

    def __init__(
        self, source: list[tuple[Tensor, Tensor]], valid: Tensor, beams: int, max_length: int
    ) -> None:
        """Start empty.

        Args:
            source: for each decoder layer, keys and values [B, H, S, K] of the memory.
            valid: [B, S] bool, True at real source positions.
            beams: N.
            max_length: most tokens that will be decoded.
        """
        self.source, self.valid, self.beams, self.length = source, valid, beams, 0
        shape = [(k.size(0) * beams, k.size(1), max_length, k.size(3)) for k, _ in source]
        self.own = [
            (k.new_zeros(s), v.new_zeros(s)) for (k, v), s in zip(source, shape, strict=True)
        ]

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values [R, H, t, K] at the end; all so far [R, H, length + t, K]."""
        keys, values = self.own[layer]
        end = self.length + key.size(2)
        keys[:, :, self.length : end] = key
        values[:, :, self.length : end] = value
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, tokens: int) -> None:
        """All layers have appended `tokens` positions."""
        self.length += tokens

    def reorder(self, rows: Tensor) -> None:
        """Row r becomes what row `rows[r]` [B*N] was; only what is filled is moved."""
        for keys, values in self.own:
            keys[:, :, : self.length] = keys[rows, :, : self.length]
            values[:, :, : self.length] = values[rows, :, : self.length]

    def keep(self, sentences: Tensor) -> None:
        """Keep only these sentences [B'], with their beams."""
        every = torch.arange(self.beams, device=sentences.device)
        rows = (sentences[:, None] * self.beams + every).flatten()  # [B'*N]
        self.own = [(k[rows], v[rows]) for k, v in self.own]
        self.source = [(k[sentences], v[sentences]) for k, v in self.source]
        self.valid = self.valid[sentences]
