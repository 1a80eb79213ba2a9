"""The key/value cache of decoding, so that no position is computed twice.

Legend: B sentences, N beams, R rows (B*N, or B while all beams of a sentence are equal), H heads,
K head width, S source length, t new tokens, C cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mt.models.modules.attention import attend_cells

SPARSE = 6
"""Steps of decoding after which dead cells are first looked for."""


class KeyValueCache:
    """Keys and values of the target prefix and of the source; all memory is allocated at the start.

    Each decoded token of a beam has a cell of its sentence. `reorder` moves no cell: a bias marks
    the cells of each beam's past, so that all beams of a sentence attend to the same keys in one
    product. Cells in no beam's past are dropped now and then.
    """

    length: int | Tensor
    """Decoded tokens."""
    own: list[tuple[Tensor, Tensor]]
    """Keys and values [B, H, C, K] of the target prefix, a pair for each layer."""
    source: list[tuple[Tensor, Tensor]]
    """Those of the source [B, H, S, K]."""
    past: Tensor
    """[B, 1, N, C] bias: 0 where a cell is in a beam's past, else -inf."""
    padding: dict[int, Tensor] | None
    """Bias of the source [B, H, 1, S] by the number of heads; None: no padding."""
    alone: Tensor
    """[N, N] bias: 0 on the diagonal, else -inf."""

    def __init__(
        self, source: list[tuple[Tensor, Tensor]], valid: Tensor, beams: int, max_length: int,
        heads: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        """Start empty, with space for `max_length` tokens.

        Args:
            source: for each decoder layer, keys and values [B, H, S, K] of the memory.
            valid: [B, S] bool, True at real source positions.
            heads: of each layer's self-attention; by default as many as attend to the source.
        """
        dtype = cache_dtype(source[0][0])
        self.source = [(k.to(dtype).contiguous(), v.to(dtype).contiguous()) for k, v in source]
        self.padding = None
        if not bool(valid.all()):
            bias = torch.zeros(valid.shape, dtype=dtype, device=valid.device)
            bias = bias.masked_fill_(~valid, -math.inf)[:, None, None]
            self.padding = {n: bias.repeat(1, n, 1, 1) for n in {k.size(1) for k, _ in source}}
        self.beams, self.length, self.filled, self.dense = beams, 0, 0, 0
        self._bias: Tensor | None = None
        self._biases: dict[int, Tensor] = {}  # of this step, by the number of heads
        sentences, cells = len(valid), max_length * beams
        counts = [key.size(1) for key, _ in source] if heads is None else heads
        first = self.source[0][0]
        shapes = [(sentences, count, cells, first.size(3)) for count in counts]
        self.own = [(first.new_empty(shape), first.new_empty(shape)) for shape in shapes]
        self.alone = torch.eye(beams, dtype=dtype, device=valid.device).log_()
        self.past = self.alone.new_full((sentences, 1, beams, cells), -math.inf)

    @property
    def fresh(self) -> bool:
        """Whether nothing was decoded yet: one row a sentence may represent all its beams."""
        return self.filled == 0

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Append keys and values and attend to the past, each [R, t, H, K]; [R, t, H*K]."""
        rows, tokens, heads, width = query.shape
        beams = rows // len(self.past)
        if layer == 0:
            self._bias = self._append_to_past(tokens, beams)
            self._biases.clear()
        if self._bias is not None and heads not in self._biases:  # for each head: [B*H, t*N, C]
            self._biases[heads] = self._bias.expand(-1, heads, -1, -1).flatten(0, 1)
        keys, values = self._append(layer, self._by_sentence(key), self._by_sentence(value))
        query = self._by_sentence(query).to(keys.dtype)
        mixed = attend_cells(query, keys, values, self._biases.get(heads))  # [B, H, t*N, K]
        mixed = mixed.unflatten(2, (tokens, beams)).permute(0, 3, 2, 1, 4)  # [B, N, t, H, K]
        return mixed.reshape(rows, tokens, heads * width)

    def _by_sentence(self, x: Tensor) -> Tensor:
        """[R, t, H, K] -> [B, H, t*N, K], the order of cells."""
        return x.unflatten(0, (len(self.past), -1)).permute(0, 3, 2, 1, 4).flatten(2, 3)

    def _append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write new cells [B, H, t*N, K]; the keys and values [B, H, C, K] of all filled cells."""
        keys, values = self.own[layer]
        end = self.filled + key.size(2)
        keys[:, :, self.filled : end] = key
        values[:, :, self.filled : end] = value
        return keys[:, :, :end], values[:, :, :end]

    def _append_to_past(self, tokens: int, beams: int) -> Tensor | None:
        """[B, 1, t*N, C] which cells each new position attends to: its beam's, up to itself."""
        end = self.filled + tokens * beams
        if tokens == 1 and self.beams == 1:
            return None
        self.past[..., :beams, self.filled : end] = self.alone[:beams, :beams].repeat(1, tokens)
        if tokens == 1:
            return self.past[:, :, :beams, :end]
        cells = torch.arange(end, device=self.past.device) - self.filled
        steps = [
            self.past[:, :, :beams, :end].masked_fill(cells >= (step + 1) * beams, -math.inf)
            for step in range(tokens)
        ]
        return torch.cat(steps, dim=2)

    def attend_source(self, layer: int, query: Tensor) -> Tensor:
        """Attend to the source from [R, t, H, K]; [R, t, H*K]."""
        rows, tokens, heads, width = query.shape
        keys, values = self.source[layer]
        grouped = query.view(len(keys), -1, heads, width).transpose(1, 2)  # [B, H, N*t, K]
        padding = None if self.padding is None else self.padding[heads].flatten(0, 1)
        mixed = attend_cells(grouped.to(keys.dtype), keys, values, padding)
        return mixed.transpose(1, 2).reshape(rows, tokens, heads * width)

    def advance(self, rows: int, tokens: int) -> None:
        """All layers have appended `tokens` positions of R `rows`."""
        beams = rows // len(self.past)
        end = self.filled + beams * tokens
        if beams < self.beams or self.beams == 1:  # it is the past of all beams
            self.past[..., self.filled : end] = 0
        self.length, self.filled = self.length + tokens, end

    def reorder(self, rows: Tensor) -> None:
        """Row r becomes what row `rows[r]` [B*N] was: its past is now that one's."""
        origins = rows.view(-1, 1, self.beams, 1) % self.beams
        past = self.past[: len(origins), :, :, : self.filled]
        past.copy_(past.gather(2, origins.expand_as(past)))
        # Beams soon share most of their past; dropping the rest must not cost what it saves.
        if self.filled >= 2 * self.dense + SPARSE * self.beams and past.device.type == "cpu":
            self._drop_dead_cells()

    def _drop_dead_cells(self) -> None:
        """Keep only cells that are in some beam's past, of each sentence at the front."""
        alive = (self.past[:, 0, :, : self.filled] == 0).any(dim=1)  # [B, C]
        self.dense = int(alive.sum(dim=1).max())
        places = alive.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
        places = places[:, : self.dense]  # [B, C']
        sentences = torch.arange(len(places), device=places.device)[:, None]
        for kept in self.own:
            for x in kept:
                x[:, :, : self.dense] = x[sentences, :, places].transpose(1, 2)
        index = places[:, None, None].expand(-1, 1, self.beams, -1)
        self.past[..., : self.dense] = self.past.gather(3, index)
        self.filled = self.dense

    def select_sentences(self, sentences: Tensor) -> None:
        """Keep only these sentences [B'], ascending, with their beams."""
        count, end = len(sentences), self.filled
        for kept in self.own:  # into the front of the same memory
            for x in kept:
                x[:count, :, :end] = x[sentences, :, :end]
        self.own = [(k[:count], v[:count]) for k, v in self.own]
        self.source = [(k[sentences], v[sentences]) for k, v in self.source]
        self.past = self.past[sentences]
        if self.padding is not None:
            self.padding = {n: each[sentences] for n, each in self.padding.items()}


def cache_dtype(keys: Tensor) -> torch.dtype:
    """The type of cached keys: on a CPU fp32 at least, as `attention._plain_attention` computes."""
    wide = torch.promote_types(keys.dtype, torch.float32)
    return wide if keys.device.type == "cpu" else keys.dtype
