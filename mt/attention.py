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


def attend_cells(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Attention in decoding: few queries, what each may see told by a bias.

    Args:
        query: [B, H, Q, K].
        key, value: [B, H, C, K].
        bias: added to the scores, 0 or -inf, broadcast to [B, H, Q, C]; None: all is seen.

    Returns:
        [B, H, Q, K].
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    # The parts are faster here than a CPU's own kernel, as in training (`_attend_plainly`).
    scores = (query * query.size(-1) ** -0.5) @ key.transpose(-2, -1)  # [B, H, Q, C]
    if bias is not None:
        scores += bias
    return scores.softmax(-1) @ value


class KeyValueCache:
    """Keys and values of what was decoded and of the source; everything allocated at the start.

    What beam n of a sentence decoded at time t stays for good in the sentence's cell t*N + n.
    When beams are reordered nothing moves: a bias tells which cells are a beam's own past, so that
    all beams of a sentence attend to the same keys in one product.
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
        first = source[0][0]
        # On a CPU attention is in fp32 at least: see `_attend_plainly`.
        wide = torch.promote_types(first.dtype, torch.float32)
        kept = wide if first.device.type == "cpu" else first.dtype
        self.source = [(k.to(kept).contiguous(), v.to(kept).contiguous()) for k, v in source]
        self.beams, self.length = beams, 0
        padding = torch.zeros(valid.shape, dtype=kept, device=valid.device)
        padding = padding.masked_fill_(~valid, -math.inf)[:, None, None]
        self.padding = None if bool(valid.all()) else padding  # [B, 1, 1, S]
        sentences, cells = len(valid), max_length * beams
        shape = (sentences, first.size(1), cells, first.size(3))
        self.own = [(k.new_empty(shape), k.new_empty(shape)) for k, _ in self.source]
        alone = torch.eye(beams, dtype=kept, device=valid.device).log_()  # 0 at itself, else -inf
        self.past = alone.repeat(1, max_length).expand(sentences, 1, beams, cells).contiguous()

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Append keys and values and attend to all of the past, each [R, t, H, K]; [R, t, H*K]."""
        rows, tokens, heads, width = query.shape
        shape = (rows // self.beams, self.beams, tokens, heads, width)
        keys, values = self.own[layer]
        start, end = self.length * self.beams, (self.length + tokens) * self.beams
        for kept, new in ((keys, key), (values, value)):  # into cells [B, H, t, N, K]
            cells = kept[:, :, start:end].unflatten(2, (tokens, self.beams))
            cells.copy_(new.view(shape).permute(0, 3, 2, 1, 4))
        bias = self._bias(tokens) if self.beams > 1 or tokens > 1 else None
        query = query.to(keys.dtype).view(shape).permute(0, 3, 2, 1, 4).flatten(2, 3)
        mixed = attend_cells(query, keys[:, :, :end], values[:, :, :end], bias)  # [B, H, t*N, K]
        mixed = mixed.unflatten(2, (tokens, self.beams)).permute(0, 3, 2, 1, 4)
        return mixed.reshape(rows, tokens, heads * width)

    def _bias(self, tokens: int) -> Tensor:
        """[B, 1, t*N, C] which cells each of the last `tokens` new positions sees."""
        end = (self.length + tokens) * self.beams
        if tokens == 1:
            return self.past[..., :end]
        later = torch.arange(end, device=self.past.device).div(self.beams, rounding_mode="floor")
        steps = [
            self.past[..., :end].masked_fill(later > self.length + step, -math.inf)
            for step in range(tokens)
        ]
        return torch.cat(steps, dim=2)

    def attend_source(self, layer: int, query: Tensor) -> Tensor:
        """Attend to the source from [R, t, H, K]; [R, t, H*K]."""
        new, tokens, heads, width = query.shape
        keys, values = self.source[layer]
        grouped = query.view(-1, self.beams * tokens, heads, width).transpose(1, 2)
        mixed = attend_cells(grouped.to(keys.dtype), keys, values, self.padding)  # [B, H, N*t, K]
        return mixed.transpose(1, 2).reshape(new, tokens, heads * width)

    def advance(self, tokens: int) -> None:
        """All layers have appended `tokens` positions."""
        self.length += tokens

    def reorder(self, rows: Tensor) -> None:
        """Row r becomes what row `rows[r]` [B*N] was: its past is now that one's."""
        origins = rows.view(-1, 1, self.beams, 1) % self.beams
        past = self.past[..., : self.length * self.beams]
        past.copy_(past.gather(2, origins.expand_as(past)))

    def keep(self, sentences: Tensor) -> None:
        """Keep only these sentences [B'], ascending, with their beams."""
        count, end = len(sentences), self.length * self.beams
        for kept in self.own:  # into the front of the same room
            for x in kept:
                x[:count, :, :end] = x[sentences, :, :end]
        self.own = [(k[:count], v[:count]) for k, v in self.own]
        self.source = [(k[sentences], v[sentences]) for k, v in self.source]
        self.past = self.past[sentences]
        if self.padding is not None:
            self.padding = self.padding[sentences]
