"""Keys and values of earlier positions, kept while decoding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mt.models.modules.attention import SPARSE, attend_cells


class KeyValueCache:
    """Keys and values of what was decoded and of the source; everything allocated at the start.

    What a beam decoded stays in a cell of its sentence. When beams are reordered nothing moves: a
    bias tells which cells are a beam's own past, so that all beams of a sentence attend to the
    same keys in one product. Cells that are no living beam's past are dropped now and then.
    """

    def __init__(
        self, source: list[tuple[Tensor, Tensor]], valid: Tensor, beams: int, max_length: int,
        heads: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        """Start empty.

        Args:
            source: for each decoder layer, keys and values [B, H, S, K] of the memory.
            valid: [B, S] bool, True at real source positions.
            beams: N.
            max_length: most tokens that will be decoded.
            heads: of each layer's self-attention; by default as many as attend to the source.
        """
        first = source[0][0]
        # On a CPU attention is in fp32 at least: see `_attend_plainly`.
        wide = torch.promote_types(first.dtype, torch.float32)
        kept = wide if first.device.type == "cpu" else first.dtype
        self.source = [(k.to(kept).contiguous(), v.to(kept).contiguous()) for k, v in source]
        padding = torch.zeros(valid.shape, dtype=kept, device=valid.device)
        padding = padding.masked_fill_(~valid, -math.inf)[:, None, None]
        self.padding: dict[int, Tensor] | None = None
        """By the number of heads, [B, H, 1, S]."""
        if not bool(valid.all()):
            numbers = {key.size(1) for key, _ in source}
            self.padding = {count: padding.repeat(1, count, 1, 1) for count in numbers}
        self.bias: Tensor | None = None
        self.biases: dict[int, Tensor] = {}
        """That of this step, which all layers share, and for a number of heads."""
        self.beams, self.length, self.filled, self.dense = beams, 0, 0, 0
        sentences, cells = len(valid), max_length * beams
        counts = [key.size(1) for key, _ in source] if heads is None else heads
        shapes = [(sentences, count, cells, first.size(3)) for count in counts]
        empty = self.source[0][0].new_empty
        self.own = [(empty(shape), empty(shape)) for shape in shapes]
        self.alone = torch.eye(beams, dtype=kept, device=valid.device).log_()  # 0, else -inf
        self.past = self.alone.new_full((sentences, 1, beams, cells), -math.inf)
        """[B, 1, N, C] the bias: 0 where a cell is in a beam's past."""

    @property
    def fresh(self) -> bool:
        """Whether nothing was decoded yet: one row a sentence may stand for all its beams."""
        return self.length == 0

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Append keys and values and attend to all of the past, each [R, t, H, K]; [R, t, H*K].

        R is B*N, or B when nothing was decoded yet and all beams are alike.
        """
        rows, tokens, heads, width = query.shape
        beams = rows // len(self.past)
        shape = (len(self.past), beams, tokens, heads, width)
        keys, values = self.own[layer]
        end = self.filled + tokens * beams
        for kept, new in ((keys, key), (values, value)):  # into cells [B, H, t, N, K]
            cells = kept[:, :, self.filled : end].unflatten(2, (tokens, beams))
            cells.copy_(new.view(shape).permute(0, 3, 2, 1, 4))
        if layer == 0:
            self.bias = self._bias(tokens, beams)
            self.biases.clear()
        if self.bias is not None and heads not in self.biases:  # for each head: [B*H, t*N, C]
            self.biases[heads] = self.bias.expand(-1, heads, -1, -1).flatten(0, 1)
        query = query.to(keys.dtype).view(shape).permute(0, 3, 2, 1, 4).flatten(2, 3)
        bias = self.biases.get(heads)
        mixed = attend_cells(query, keys[:, :, :end], values[:, :, :end], bias)
        # [B, H, t*N, K]
        mixed = mixed.unflatten(2, (tokens, beams)).permute(0, 3, 2, 1, 4)
        return mixed.reshape(rows, tokens, heads * width)

    def _bias(self, tokens: int, beams: int) -> Tensor | None:
        """[B, 1, t*N, C] which cells each new position sees: its beam's, not those after it."""
        end = self.filled + tokens * beams
        if tokens == 1:
            if self.beams == 1:
                return None
            self.past[..., :beams, self.filled : end] = self.alone[:beams, :beams]
            return self.past[:, :, :beams, :end]
        self.past[..., :beams, self.filled : end] = self.alone[:beams, :beams].repeat(1, tokens)
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
        grouped = query.view(len(keys), -1, heads, width).transpose(1, 2)
        padding = None if self.padding is None else self.padding[heads].flatten(0, 1)
        mixed = attend_cells(grouped.to(keys.dtype), keys, values, padding)  # [B, H, N*t, K]
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
        past = self.past[..., : self.filled]
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

    def keep(self, sentences: Tensor) -> None:
        """Keep only these sentences [B'], ascending, with their beams."""
        count, end = len(sentences), self.filled
        for kept in self.own:  # into the front of the same room
            for x in kept:
                x[:count, :, :end] = x[sentences, :, :end]
        self.own = [(k[:count], v[:count]) for k, v in self.own]
        self.source = [(k[sentences], v[sentences]) for k, v in self.source]
        self.past = self.past[sentences]
        if self.padding is not None:
            self.padding = {count: each[sentences] for count, each in self.padding.items()}
