"""The key/value cache at fixed addresses: all that a captured step of decoding reads and writes.

Its plain twin is `mt.attention.KeyValueCache`. Sizes are those of a frame, one of few; what is
beyond the real ones is hidden by biases, and the position is a number on the device, so that one
recording of a step serves each step in that frame.

Legend: L layers, B sentences of the frame, N beams, H heads, K head width, S source length of
the frame, T tokens that it has room for, C = T*N cells, R = B*N rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mt.models.modules.attention import attend_cells

SHORTEST = 16
"""The least length of a frame; others are powers of two times it."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The sizes of a step, real ones rounded up."""

    sentences: int
    beams: int
    source: int
    tokens: int

    @classmethod
    def around(cls, sentences: int, beams: int, source: int, tokens: int) -> Frame:
        """The least frame that holds these; beams are as many as there are."""
        return cls(_sentences(sentences), beams, _doubled(source), _doubled(tokens))

    @property
    def rows(self) -> int:
        """R."""
        return self.sentences * self.beams


def _doubled(length: int) -> int:
    """The least power of two, SHORTEST at least, that is not less."""
    return max(SHORTEST, 1 << max(0, length - 1).bit_length())


def _sentences(count: int) -> int:
    """The least of 1, 4, 16, 32, 48, 64, 96, 128, 192, ... that is not less."""
    if count <= 16:
        return 1 if count == 1 else 4 if count <= 4 else 16
    power = 1 << (count - 1).bit_length()
    return power * 3 // 4 if power >= 64 and count <= power * 3 // 4 else power


class Rooms:
    """Memory under names: what is asked for in any shape begins at the same address, always.

    A room that is too small is made anew, and `moved` counts how often that happened: whoever
    remembers addresses forgets them then.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.moved = device, 0
        self.held: dict[str, Tensor] = {}

    def view(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """The front of a room, in this shape; it holds what was there before."""
        size = math.prod(shape)
        room = self.held.get(name)
        if room is None or room.numel() < size or room.dtype != dtype:
            with torch.inference_mode(False):  # so that it may be written to anywhere
                self.held[name] = torch.zeros(size + size // 4, dtype=dtype, device=self.device)
            self.moved += 1
        return self.held[name][:size].view(*shape)


class StaticCache:
    """Has the methods of `KeyValueCache` by which layers attend; one new token a row and step.

    It is for one batch at a time: `load` begins the next one in the same memory.
    """

    frame: Frame
    own: Tensor
    """[2L, B, H, C, K] keys and values of what was decoded, of each layer in turn."""
    source: Tensor
    """[2L, B, H, S, K] those of the source."""
    past: Tensor
    """[B, 1, N, C] the bias: 0 where a cell is in a beam's past."""
    padding: Tensor
    """[B, H, 1, S] the bias: 0 at real source positions."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self.length = rooms.view("length", (1,), torch.long)
        """[1] how many tokens were decoded."""

    def load(self, frame: Frame, source: Sequence[tuple[Tensor, Tensor]], valid: Tensor) -> None:
        """Begin a batch.

        Args:
            frame: sizes that hold it.
            source: for each decoder layer, keys and values [B', H, S', K] of the memory.
            valid: [B', S'] bool, True at real source positions.
        """
        first = source[0][0]
        self.layers, self.heads, self.width = len(source), first.size(1), first.size(3)
        # On a CPU attention is in fp32 at least, as in `KeyValueCache`.
        wide = torch.promote_types(first.dtype, torch.float32)
        self.dtype = wide if first.device.type == "cpu" else first.dtype
        self._settle(frame, len(valid))
        real = slice(None, len(valid)), slice(None), slice(None), slice(None, valid.size(1))
        for place, kept in enumerate(each for pair in source for each in pair):
            self.source[place][real[:2] + real[3:]] = kept
        self.padding[real] = self.padding[real].masked_fill(valid[:, None, None], 0)
        self.length.zero_()

    def _settle(self, frame: Frame, count: int) -> None:
        """Take a frame, empty but for what lets `count` sentences and the rest be computed."""
        self.frame = frame
        b, n, s, c = frame.sentences, frame.beams, frame.source, frame.tokens * frame.beams
        layers = 2 * self.layers
        view = self.rooms.view
        self.own = view("own", (layers, b, self.heads, c, self.width), self.dtype)
        self.source = view("source", (layers, b, self.heads, s, self.width), self.dtype)
        self.past = view("past", (b, 1, n, c), self.dtype)
        self.padding = view("padding", (b, self.heads, 1, s), self.dtype)
        self.alone = view("alone", (n, n), self.dtype)  # 0, else -inf
        self.alone.fill_(-math.inf).fill_diagonal_(0)
        # Hidden cells weigh 0, which only what is finite survives.
        self.own.zero_()
        self.source.zero_()
        self.past.fill_(-math.inf)
        self.padding.fill_(-math.inf)
        self.padding[count:, ..., 0] = 0  # sentences that are none must see something

    def move(self, frame: Frame, sentences: Tensor, tokens: int) -> None:
        """Go on in another frame, or the same, with only these sentences [B'], ascending.

        Args:
            frame: its source length is that of now.
            sentences: which are kept.
            tokens: how many were decoded.
        """
        used = tokens * frame.beams
        own, past = self.own[:, sentences, :, :used], self.past[sentences, :, :, :used]
        source, padding = self.source[:, sentences], self.padding[sentences]
        self._settle(frame, len(sentences))
        count = len(sentences)
        self.own[:, :count, :, :used], self.past[:count, ..., :used] = own, past
        self.source[:, :count], self.padding[:count] = source, padding

    def reorder(self, rows: Tensor) -> None:
        """Row r becomes what row `rows[r]` [B'*N] was: its past is now that one's."""
        beams = self.frame.beams
        past = self.past[: len(rows) // beams]
        origins = rows.view(-1, 1, beams, 1) % beams
        past.copy_(past.gather(2, origins.expand_as(past)))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Append keys and values and attend to all of the past, each [R, 1, H, K]; [R, 1, H*K]."""
        keys, values = self.own[2 * layer], self.own[2 * layer + 1]
        if layer == 0:
            self._append_to_past()
        for kept, new in ((keys, key), (values, value)):
            kept.index_copy_(2, self.cells, self._apart(new))
        return self._attend(query, keys, values, self.bias)

    def _append_to_past(self) -> None:
        """The cells of this step, and the bias that all layers share."""
        frame = self.frame
        self.cells = self.length * frame.beams + torch.arange(frame.beams, device=self.past.device)
        self.past.index_copy_(3, self.cells, self.alone.expand(frame.sentences, 1, -1, -1))
        self.bias = self.past.expand(-1, self.heads, -1, -1).flatten(0, 1)  # [B*H, N, C]

    def attend_source(self, layer: int, query: Tensor) -> Tensor:
        """Attend to the source from [R, 1, H, K]; [R, 1, H*K]."""
        keys, values = self.source[2 * layer], self.source[2 * layer + 1]
        return self._attend(query, keys, values, self.padding.flatten(0, 1))

    def _apart(self, x: Tensor) -> Tensor:
        """[R, 1, H, K] -> [B, H, N, K]."""
        shape = (self.frame.sentences, self.frame.beams, self.heads, self.width)
        return x.reshape(shape).transpose(1, 2).to(self.dtype)

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        mixed = attend_cells(self._apart(query), keys, values, bias)  # [B, H, N, K]
        return mixed.transpose(1, 2).reshape(self.frame.rows, 1, self.heads * self.width)

    def advance(self, rows: int, tokens: int) -> None:
        """All layers have appended one position of all rows."""
        self.length.add_(tokens)
