"""A key/value cache at fixed addresses: a captured decoding step reads and writes nothing else.

Sizes are rounded up to one of few shapes. Biases hide what lies beyond the real sizes, and the
step is a number on the device, so that one capture serves each step of its shape.

Legend: L layers, B sentences of the shape, N beams, H heads, K head width, S source length of
the shape, T tokens that fit, C = T*N cells, R = B*N rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mt.models.modules.kv_cache import KeyValueCache, cache_dtype

SHORTEST = 16
"""The least length of a shape; others are powers of two times it."""


@dataclass(frozen=True, slots=True)
class StaticShape:
    """The sizes of a step, real ones rounded up."""

    sentences: int
    beams: int
    source: int
    tokens: int

    @classmethod
    def rounded_up(cls, sentences: int, beams: int, source: int, tokens: int) -> StaticShape:
        """The smallest shape for these sizes; beams are as many as there are."""
        lengths = (max(SHORTEST, 1 << max(0, n - 1).bit_length()) for n in (source, tokens))
        return cls(_round_up_sentences(sentences), beams, *lengths)

    @property
    def rows(self) -> int:
        """R."""
        return self.sentences * self.beams


def _round_up_sentences(count: int) -> int:
    """The least of 1, 4, 16, 32, 48, 64, 96, 128, 192, ... that is not less."""
    if count <= 16:
        return 1 if count == 1 else 4 if count <= 4 else 16
    power = 1 << (count - 1).bit_length()
    return power * 3 // 4 if power >= 64 and count <= power * 3 // 4 else power


class BufferPool:
    """Named memory: views of one name start at the same address, whatever their shape.

    A buffer that is too small is replaced, and `moved` counts replacements: addresses kept from
    before are invalid.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.moved = device, 0
        self.buffers: dict[str, Tensor] = {}
        self.owner: object = None
        """The cache whose contents the buffers have."""

    def view(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """The front of a buffer, in this shape, with its earlier contents."""
        size = math.prod(shape)
        buffer = self.buffers.get(name)
        if buffer is None or buffer.numel() < size or buffer.dtype != dtype:
            with torch.inference_mode(False):  # so that it may be written to anywhere
                buffer = torch.zeros(size + size // 4, dtype=dtype, device=self.device)
            self.buffers[name] = buffer
            self.moved += 1
        return buffer[:size].view(*shape)


class StaticCache(KeyValueCache):
    """A `KeyValueCache` in a pool, which one at a time uses, for one new token a row and step."""

    length: Tensor
    """[1] decoded tokens."""

    def __init__(
        self, pool: BufferPool, source: Sequence[tuple[Tensor, Tensor]], valid: Tensor, beams: int
    ) -> None:
        """Start empty, in the place of the pool's last cache; see `KeyValueCache`."""
        sentences, self.heads, length, self.width = source[0][0].shape
        self.layers, self.dtype = len(source), cache_dtype(source[0][0])
        self.pool, self.beams, self.steps = pool, beams, 0
        self._biases = {}
        pool.owner = self
        self._allocate(StaticShape.rounded_up(sentences, beams, length, 1), sentences)
        for own, new in zip(self.source, source, strict=True):
            for place, kept in zip(own, new, strict=True):
                place[:sentences, :, :length] = kept
        bias = self.padding[self.heads][:sentences, ..., :length]
        bias.copy_(bias.masked_fill(valid[:, None, None], 0))
        self.length = pool.view("length", (1,), torch.long).zero_()

    def _allocate(self, shape: StaticShape, count: int) -> None:
        """Take a shape for `count` real sentences, empty; the rest must not become NaN."""
        self.shape, self.sentences = shape, count
        b, n, s, c = shape.sentences, shape.beams, shape.source, shape.tokens * shape.beams
        view = self.pool.view
        self._own = view("own", (self.layers, 2, b, self.heads, c, self.width), self.dtype)
        self._source = view("source", (self.layers, 2, b, self.heads, s, self.width), self.dtype)
        self.past = view("past", (b, 1, n, c), self.dtype).fill_(-math.inf)
        padding = view("padding", (b, self.heads, 1, s), self.dtype).fill_(-math.inf)
        padding[count:, ..., 0] = 0  # a softmax needs one key
        self.padding: dict[int, Tensor] = {self.heads: padding}
        self.alone = view("alone", (n, n), self.dtype).fill_(-math.inf).fill_diagonal_(0)
        # Hidden cells have weight 0, and 0 times infinity is NaN.
        self.own = [(k, v) for k, v in self._own.zero_()]
        self.source = [(k, v) for k, v in self._source.zero_()]
        self.filled = self.dense = c

    def _move(self, shape: StaticShape, sentences: Tensor) -> None:
        """Continue in another shape of the same source length with only these sentences [B']."""
        count, used = len(sentences), self.steps * self.beams
        own, past = self._own[:, :, sentences, :, :used], self.past[sentences, ..., :used]
        source, padding = self._source[:, :, sentences], self.padding[self.heads][sentences]
        self._allocate(shape, count)
        self._own[:, :, :count, :, :used], self.past[:count, ..., :used] = own, past
        self._source[:, :, :count], self.padding[self.heads][:count] = source, padding

    def select_sentences(self, sentences: Tensor) -> None:
        """Keep only these sentences [B'], ascending, with their beams."""
        self.check_owner()
        s = self.shape
        shape = StaticShape.rounded_up(len(sentences), s.beams, s.source, s.tokens)
        self._move(shape, sentences)

    def grow(self) -> None:
        """Move to a shape of more tokens when this one is full."""
        self.check_owner()
        if self.steps == self.shape.tokens:
            every = torch.arange(self.sentences, device=self.past.device)
            self._move(replace(self.shape, tokens=2 * self.shape.tokens), every)

    def check_owner(self) -> None:
        """Check that the pool has the contents of this cache.

        Raises:
            RuntimeError: another cache was started since.
        """
        if self.pool.owner is not self:
            raise RuntimeError("a pool serves one batch at a time, and this is not the last one")

    def reorder(self, rows: Tensor) -> None:
        """Row r of the real ones becomes what row `rows[r]` [B'*N] was."""
        self.check_owner()
        super().reorder(rows)

    def _append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        for kept, new in zip(self.own[layer], (key, value), strict=True):
            kept.index_copy_(2, self.cells, new.to(self.dtype))
        return self.own[layer]

    def _append_to_past(self, tokens: int, beams: int) -> Tensor:
        self.cells = self.length * beams + torch.arange(beams, device=self.past.device)
        self.past.index_copy_(3, self.cells, self.alone.expand(len(self.past), 1, -1, -1))
        return self.past

    def advance(self, rows: int, tokens: int) -> None:
        """All layers have appended one position of all rows; part of a captured step."""
        self.length.add_(tokens)
