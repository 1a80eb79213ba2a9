"""Position encodings: sinusoidal, learned, rotary."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from mt.errors import ModelError


class Rotary(nn.Module):
    """Rotates queries and keys by their positions (RoFormer, Su et al. 2021, section 3.2.2).

    Components 2i and 2i+1 of a head rotate together by p / 10000^(2i/K) at position p (equation
    34), so their products depend only on distances. The width K is even. The table grows as needed.
    """

    table: Tensor

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("table", sinusoids(length, width), persistent=False)  # [length, K]

    def forward(self, x: Tensor, start: int | Tensor = 0) -> Tensor:
        """Rotate x [B, T, H*K] from position `start` on; a tensor [1] on the device if T is 1."""
        if isinstance(start, Tensor):
            rows = self.table.index_select(0, start)
        else:
            rows = self.reserve(start + x.size(1))[start : start + x.size(1)]  # [T, K]
        sine, cosine = rows[:, None].unflatten(-1, (-1, 2)).unbind(-1)  # [T, 1, K/2]
        a, b = x.unflatten(-1, (-1, self.width // 2, 2)).unbind(-1)  # [B, T, H, K/2] each
        rotated = torch.stack((a * cosine - b * sine, a * sine + b * cosine), dim=-1)
        return rotated.flatten(2).to(x.dtype)

    def reserve(self, end: int) -> Tensor:
        """The table, grown to the positions before `end`."""
        if end > len(self.table):
            self.table = sinusoids(2 * end, self.width).to(self.table)
        return self.table


def sinusoids(length: int, d_model: int) -> Tensor:
    """PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos of it (section 3.5): [length, D]."""
    if torch.get_default_device().type == "meta":  # only the shape matters
        return torch.empty(length, d_model)
    position = torch.arange(length, dtype=torch.float64)[:, None]
    rate = torch.exp(torch.arange(0, d_model, 2, dtype=torch.float64) * -math.log(1e4) / d_model)
    angle = position * rate  # [length, D/2]
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)[:, :d_model].float()


class Positions(nn.Module):
    """Adds position encodings to embeddings (section 3.5); nothing for `rotary` and `none`."""

    table: Tensor

    def __init__(
        self, kind: Literal["sinusoidal", "learned", "rotary", "none"], d_model: int,
        max_length: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kind, self.d_model = kind, d_model
        self.learned = nn.Embedding(max_length, d_model) if kind == "learned" else None
        table = sinusoids(max_length, d_model) if kind == "sinusoidal" else torch.empty(0)
        self.register_buffer("table", table, persistent=False)  # [max_length, D]

    def forward(self, x: Tensor, start: int | Tensor = 0) -> Tensor:
        """Add to x [B, T, D] from position `start` on; a tensor [1] on the device if T is 1.

        Raises:
            ModelError: a learned table ends before the last position.
        """
        if self.kind in ("none", "rotary"):
            return x
        if isinstance(start, Tensor):
            table = self.table if self.learned is None else self.learned.weight
            return x + table.index_select(0, start)
        end = start + x.size(1)
        return x + self.reserve(end)[start:end]

    def reserve(self, end: int) -> Tensor:
        """The table, grown to the positions before `end`.

        Raises:
            ModelError: a learned table is too short.
        """
        if self.learned is not None:
            if end > len(self.learned.weight):
                what = f"its table has {len(self.learned.weight)} positions, {end} are asked for"
                advice = "ask for less text at a time; sinusoidal and rotary positions know no end"
                raise ModelError("POSITIONS", "model.positions: learned", what, advice)
            return self.learned.weight
        if self.kind == "sinusoidal" and end > self.table.size(0):
            self.table = sinusoids(2 * end, self.d_model).to(self.table)
        return self.table
