"""Noise on text, in ids, for a denoising model. Pure functions of (seed, row).

Every random number is a hash of (seed, row, purpose, position), so noise does not depend on
batching, the device, or the order of calls. No value is read from a device.

Legend: B rows, S positions; `tokens` [B, S] are padded to the right and `lengths` [B] of them are
real; `seed` is [] int64 and `rows` [B] int64. No function makes a row longer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mt.special_tokens import MASK, PAD

ORDER, DELETE, BUDGET, LENGTHS, PLACES, PREDICT, REPLACE, PIECE = range(8)
"""Purposes of random numbers: each has numbers of its own."""
_GOLDEN, _FIRST, _SECOND = (
    number - (1 << 64) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def uniform_hash(seed: Tensor, rows: Tensor, purpose: int, count: int) -> Tensor:
    """Return numbers [B, count] in [0, 1), fp32: SplitMix64 (Steele et al. 2014) of all arguments.

    `purpose` is one of those above.
    """
    key = _mix_bits(_mix_bits(seed + (purpose + 1) * 1_000_003) + rows * _GOLDEN)  # [B]
    place = torch.arange(1, count + 1, device=rows.device) * _GOLDEN
    bits = _mix_bits(key[:, None] + place)  # [B, count]
    return _shift_rows(bits, 40).float() * 2.0**-24


def _mix_bits(x: Tensor) -> Tensor:
    x = (x ^ _shift_rows(x, 30)) * _FIRST
    x = (x ^ _shift_rows(x, 27)) * _SECOND
    return x ^ _shift_rows(x, 31)


def _shift_rows(x: Tensor, bits: int) -> Tensor:
    """Shift int64 to the right and fill with zeros."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def local_shuffle(
    tokens: Tensor, lengths: Tensor, distance: float, seed: Tensor, rows: Tensor
) -> Tensor:
    """Sort tokens by place + U(0, distance + 1), so that none moves further than `distance`.

    From Lample et al. 2018, "Unsupervised machine translation using monolingual corpora only",
    section 2.3.
    """
    place = torch.arange(tokens.size(1), device=tokens.device)
    key = place + uniform_hash(seed, rows, ORDER, tokens.size(1)) * (distance + 1)
    key = torch.where(place < lengths[:, None], key, math.inf)
    return tokens.gather(1, key.argsort(dim=1, stable=True))


def delete_tokens(
    tokens: Tensor, lengths: Tensor, share: float, seed: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Delete each token with probability `share` (Lewis et al. 2020, section 2.2).

    Returns the tokens that are left, and their lengths.
    """
    place = torch.arange(tokens.size(1), device=tokens.device)
    kept = uniform_hash(seed, rows, DELETE, tokens.size(1)) >= share
    kept &= place < lengths[:, None]
    left = tokens.gather(1, (~kept).long().argsort(dim=1, stable=True))
    lengths = kept.sum(1)
    return torch.where(place < lengths[:, None], left, PAD), lengths


def infill_spans(
    tokens: Tensor, lengths: Tensor, share: float, table: Tensor, seed: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Replace spans of tokens by one `<mask>` each (Lewis et al. 2020, section 2.2).

    Spans have Poisson lengths by the table of `poisson_lengths` and cover `share` of the tokens of
    a row; one of length 0 inserts a `<mask>`. They never touch: each gap between the tokens that
    stay has at most one. A row has at most as many spans as covered tokens, so it does not grow.

    Returns the noised tokens [B, S] and their lengths.
    """
    count, width = tokens.shape
    place = torch.arange(width + 1, device=tokens.device)
    budget = lengths * share + uniform_hash(seed, rows, BUDGET, 1)[:, 0]
    budget = torch.minimum(budget.floor().long(), lengths)  # [B] tokens to cover
    spans, sizes = _spans(
        budget, lengths - budget + 1, table, uniform_hash(seed, rows, LENGTHS, width)
    )
    covered = sizes.sum(1)  # [B]
    # Gap g is before the token that is the g-th of those that stay.
    key = uniform_hash(seed, rows, PLACES, width + 1)
    key = torch.where(place <= (lengths - covered)[:, None], key, 2.0)
    gaps = key.argsort(dim=1, stable=True)[:, :width]  # the first ones get the spans
    masks = torch.zeros(count, width + 1, dtype=torch.int64, device=tokens.device)
    missing = masks.scatter(1, gaps, sizes).cumsum(1)  # [B, S+1] tokens covered up to a gap
    masks = masks.scatter(1, gaps, spans)
    before = masks.cumsum(1)  # [B, S+1] masks up to a gap
    stays = place < (lengths - covered)[:, None]
    remaining = tokens.gather(1, (place + missing).clamp(max=width - 1))
    out = torch.full((count, width + 2), PAD, device=tokens.device)
    last = width + 1  # a column that is dropped
    out.scatter_(1, torch.where(stays, place + before, last), remaining)
    out.scatter_(1, torch.where(masks > 0, place + before - 1, last), MASK)
    return out[:, :width], lengths - covered + spans.sum(1)


def _spans(budget: Tensor, gaps: Tensor, table: Tensor, random: Tensor) -> tuple[Tensor, Tensor]:
    """Return which of S spans a row has, as 1 and then 0, and the size of each: both [B, S].

    They cover `budget` [B] tokens and are at most `gaps` [B]; `random` is [B, S].
    """
    sizes = torch.searchsorted(table, random, right=True)
    before = sizes.cumsum(1) - sizes
    number = torch.arange(random.size(1), device=random.device)
    used = (before < budget[:, None]) & (number < gaps[:, None])
    sizes = torch.minimum(sizes, budget[:, None] - before) * used
    # A span that inserts a mask needs another one of two tokens, or the row would grow.
    inserts = used & (sizes == 0)
    spare = sizes.sum(1) - (sizes > 0).sum(1)
    used &= ~inserts | (inserts.cumsum(1) <= spare[:, None])
    order = (~used).long().argsort(dim=1, stable=True)
    return used.gather(1, order).long(), (sizes * used).gather(1, order)


def poisson_lengths(mean: float) -> Tensor:
    """Return the Poisson distribution function at 0, 1, 2 ..., up to nearly 1."""
    term, terms = math.exp(-mean), []
    for number in range(1, 20 + math.ceil(4 * mean)):
        terms.append(term)
        term *= mean / number
    return torch.tensor(terms, dtype=torch.float64).cumsum(0).float()


def mask_tokens(
    tokens: Tensor, text: Tensor, share: float, pieces: tuple[int, int], seed: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Mask tokens for prediction (Devlin et al. 2019, section 3.1).

    Of a `share` of the positions `text`, [B, S] bool, 80 % become `<mask>`, 10 % a random id in
    the range `pieces`, and 10 % stay.

    Returns the masked tokens, and which positions the model predicts, [B, S] bool.
    """
    width, (first, end) = tokens.size(1), pieces
    predicted = (uniform_hash(seed, rows, PREDICT, width) < share) & text
    action = uniform_hash(seed, rows, REPLACE, width)
    number = (uniform_hash(seed, rows, PIECE, width) * (end - first)).long()
    other = first + number.clamp(max=end - first - 1)
    changed = torch.where(action < 0.8, MASK, torch.where(action < 0.9, other, tokens))
    return torch.where(predicted, changed, tokens), predicted
