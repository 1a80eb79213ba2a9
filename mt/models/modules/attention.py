"""Scaled dot-product attention: the only file that names a kernel.

Legend: B sentences, R rows (B, or B*N when decoding N beams), H heads, T queries, S keys,
K head width, C cells of a cache.
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

    Padding is on the right, so no causal query attends to it: `causal` needs no `valid`.
    The T causal queries are the last T of the S positions, as when the others are cached.

    Args:
        query: [R, H, T, K].
        key, value: [R, H, S, K].
        valid: [R, S] bool, False where a key is padding.
        causal: query t attends to keys 0 to S - T + t only.
        dropout: probability of dropping a weight.

    Returns:
        [R, H, T, K].
    """
    if query.device.type == "cpu" and not torch.compiler.is_compiling():
        return _plain_attention(query, key, value, valid, causal, dropout)
    mask = None if valid is None else valid[:, None, None, :]  # [R, 1, 1, S]
    if query.size(2) == 1:  # the last query attends to every key
        causal = False
    # The kernel's arguments contain no conditions on sizes: torch.compile would stop there.
    if causal and (mask is not None or query.size(2) != key.size(2)):
        past = ~_future(query.size(2), key.size(2), query.device)
        mask, causal = past if mask is None else past & mask, False
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal
    )


def _plain_attention(
    query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None, causal: bool, dropout: float
) -> Tensor:
    """Attention in parts, in fp32 at least: a CPU kernel takes several times as long.

    Products of few rows gain little from bf16, where each new size costs a kernel (see `linear`).
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    if valid is not None and bool(valid.all()):
        valid = None
    with torch.autocast("cpu", enabled=False):
        # One copy separates the heads in memory and converts the type.
        q, k, v = (t.to(wide, memory_format=torch.contiguous_format) for t in (query, key, value))
        return (byte_dropout(attention_weights(q, k, valid, causal), dropout) @ v).to(query.dtype)


def _future(queries: int, keys: int, device: torch.device) -> Tensor:
    """[T, S] bool, True where a key comes after the query."""
    every = torch.ones(queries, keys, dtype=torch.bool, device=device)
    return every.triu(keys - queries + 1)


def attention_weights(
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
    """Dropout with one random byte an element: several times faster on a CPU."""

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


def byte_dropout(x: Tensor, probability: float) -> Tensor:
    """Zero elements with `probability` and scale up the rest (section 5.4), in training only.

    On a CPU the probability, and with it the scale, is rounded to 1/256.
    """
    if probability == 0:
        return x
    threshold = round(probability * 256)
    if x.device.type != "cpu" or torch.compiler.is_compiling() or not 0 < threshold < 256:
        return F.dropout(x, probability)
    dropped: Tensor = _ByteDropout.apply(x, threshold)  # type: ignore[no-untyped-call]
    return dropped


def attend_cells(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Attention of few queries [B, H, T, K] to keys and values [B, H, C, K] of a cache.

    The bias [B*H, T or 1, C], 0 or -inf, is added to the scores. The result is [B, H, T, K].
    """
    if query.device.type != "cpu":
        mask = None if bias is None else bias.unflatten(0, query.shape[:2])
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    # The parts are faster here than a CPU's own kernel, as in training (`_plain_attention`).
    flat = query.flatten(0, 1)  # [B*H, T, K]
    start, share = (flat.new_zeros(()), 0) if bias is None else (bias, 1)
    keys = key.flatten(0, 1).transpose(1, 2)
    scale = query.size(-1) ** -0.5
    scores = torch.baddbmm(start, flat, keys, beta=share, alpha=scale)  # [B*H, T, C]
    return torch.bmm(scores.softmax(-1), value.flatten(0, 1)).unflatten(0, query.shape[:2])
