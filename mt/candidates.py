"""What searches share: which candidates a hypothesis may grow by, and the best of them.

Legend: B sentences still searched, N beams, T most tokens, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mt.contracts import END, Request
from mt.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

NONE = float("-inf")


def forced_tokens(request: Request) -> Tensor:
    """[B, T] the only token allowed at a step: those of a prefix, END at the last; else -1.

    Raises:
        ConfigError: a prefix leaves no room for END.
    """
    import torch

    lengths = request.max_lengths
    longest = int(lengths.max()) if len(lengths) else 0
    forced = torch.full((len(lengths), longest), -1, dtype=torch.long, device=lengths.device)
    for row, prefix in enumerate(request.prefixes or ()):
        if len(prefix) >= int(lengths[row]):
            what = f"a prefix of {len(prefix)} tokens leaves no room in {int(lengths[row])}"
            raise ConfigError("SEARCH", "search.max_length_extra", what, "allow more length")
        forced[row, : len(prefix)] = torch.tensor(prefix, dtype=torch.long)
    return forced.scatter_(1, lengths[:, None].long() - 1, END)


def best_of(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of `values` [..., V] and their places, of equal ones the first.

    `topk` alone chooses among equal values as it likes, which bf16 makes common.
    """
    import torch

    size = values.shape[-1]
    if count >= size:
        ordered = values.sort(dim=-1, descending=True, stable=True)
        return ordered.values, ordered.indices
    top, places = values.topk(count + 1)
    least, places = top[..., count - 1, None], places[..., :count]
    tied = ((least == top[..., count:]) & (least != NONE)).any()
    if tied:
        later = torch.arange(size, device=values.device).neg().expand_as(values)
        equal = later.masked_fill(values != least, -size).topk(count).values.neg()
        above = (top[..., :count] > least).sum(dim=-1, keepdim=True)  # [..., 1] not in question
        rank = torch.arange(count, device=values.device).expand_as(places)
        places = places.where(rank < above, equal.gather(-1, (rank - above).clamp(min=0)))
    places = places.sort(dim=-1).values
    ordered = values.gather(-1, places).sort(dim=-1, descending=True, stable=True)
    return ordered.values, places.gather(-1, ordered.indices)
