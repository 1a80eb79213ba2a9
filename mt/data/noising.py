"""Noise on text, in ids: what a denoising model reads. Pure functions of (seed, row).

Every random number is a hash of (seed, row, what it is for, position), so that noise does not
depend on how rows are batched, on the device, nor on how often it is drawn. All shapes are
known beforehand: no value is read from a device.

Legend: B rows, S positions; tokens [B, S] stand to the left, `lengths` [B] of them are real, and
the rest is padding. No function makes a row longer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mt.special_tokens import MASK, PAD

ORDER, DELETE, BUDGET, LENGTHS, PLACES, PREDICT, REPLACE, PIECE = range(8)
"""What random numbers are for: each has numbers of its own."""
_GOLDEN, _FIRST, _SECOND = (
    number - (1 << 64) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def uniform_hash(seed: Tensor, rows: Tensor, purpose: int, count: int) -> Tensor:
    """Numbers [B, count] in [0, 1), fp32: SplitMix64 (Steele et al. 2014) of all that is given.

    Args:
        seed: [] int64.
        rows: [B] int64, the number of each row.
        purpose: one of those above.
        count: how many numbers a row.
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
    """int64 shifted right with zeros moving in."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def local_shuffle(
    tokens: Tensor, lengths: Tensor, distance: float, seed: Tensor, rows: Tensor
) -> Tensor:
    """Local disorder: tokens sorted by place + U(0, distance + 1), so that none moves further.

    From Lample et al. 2018, "Unsupervised machine translation using monolingual corpora only",
    section 2.3; distance 0 changes nothing.
    """
    place = torch.arange(tokens.size(1), device=tokens.device)
    key = place + uniform_hash(seed, rows, ORDER, tokens.size(1)) * (distance + 1)
    key = torch.where(place < lengths[:, None], key, math.inf)
    return tokens.gather(1, key.argsort(dim=1, stable=True))


def delete_tokens(
    tokens: Tensor, lengths: Tensor, share: float, seed: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Token deletion (Lewis et al. 2020, section 2.2): each is dropped with probability `share`.

    What to drop is not marked, so that the model must also find where something is missing.

    Returns:
        The tokens that are left, and how many they are.
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
    """Text infilling (Lewis et al. 2020, section 2.2): spans of tokens each become one `<mask>`.

    Spans have Poisson lengths and cover `share` of a row's tokens; one of length 0 inserts a
    `<mask>`. They never touch: of the gaps between the tokens that stay, each holds at most one.
    A row has at most as many spans as covered tokens: none becomes longer.

    Args:
        tokens, lengths: the text.
        share: of its tokens that are covered; the last fraction of a token by chance.
        table: what `poisson_lengths` says of the lengths; the last is cut to what is left to cover.
        seed, rows: of the random numbers.

    Returns:
        The noised tokens [B, S] and their lengths.
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
    gaps = key.argsort(dim=1, stable=True)[:, :width]  # the first of them get the spans
    masks = torch.zeros(count, width + 1, dtype=torch.int64, device=tokens.device)
    missing = masks.scatter(1, gaps, sizes).cumsum(1)  # [B, S+1] tokens covered up to a gap
    masks = masks.scatter(1, gaps, spans)
    before = masks.cumsum(1)  # [B, S+1] masks up to a gap
    stays = place < (lengths - covered)[:, None]
    taken = tokens.gather(1, (place + missing).clamp(max=width - 1))
    out = torch.full((count, width + 2), PAD, device=tokens.device)
    last = width + 1  # where goes what is nothing
    out.scatter_(1, torch.where(stays, place + before, last), taken)
    out.scatter_(1, torch.where(masks > 0, place + before - 1, last), MASK)
    return out[:, :width], lengths - covered + spans.sum(1)


def _spans(budget: Tensor, gaps: Tensor, table: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Which of S spans a row has, as 1 and then 0, and the size of each: both [B, S].

    Args:
        budget: [B] tokens that they cover.
        gaps: [B] how many there may be.
        table: the distribution function of their sizes.
        drawn: [B, S] random numbers.
    """
    sizes = torch.searchsorted(table, drawn, right=True)
    before = sizes.cumsum(1) - sizes
    number = torch.arange(drawn.size(1), device=drawn.device)
    used = (before < budget[:, None]) & (number < gaps[:, None])
    sizes = torch.minimum(sizes, budget[:, None] - before) * used
    # One that inserts a mask needs another that takes away two tokens, or the row would grow.
    inserts = used & (sizes == 0)
    spare = sizes.sum(1) - (sizes > 0).sum(1)
    used &= ~inserts | (inserts.cumsum(1) <= spare[:, None])
    order = (~used).long().argsort(dim=1, stable=True)
    return used.gather(1, order).long(), (sizes * used).gather(1, order)


def poisson_lengths(mean: float) -> Tensor:
    """The distribution function of the Poisson distribution at 0, 1, 2 ..., up to nearly 1."""
    term, terms = math.exp(-mean), []
    for number in range(1, 20 + math.ceil(4 * mean)):
        terms.append(term)
        term *= mean / number
    return torch.tensor(terms, dtype=torch.float64).cumsum(0).float()


def mask_tokens(
    tokens: Tensor, text: Tensor, share: float, pieces: tuple[int, int], seed: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Masked-token prediction (Devlin et al. 2019, section 3.1).

    Of the positions drawn 80 % become `<mask>`, 10 % a random piece, and 10 % stay as they are.

    Args:
        tokens: [B, S].
        text: [B, S] bool, the positions to draw from.
        share: how many of them.
        pieces: the first id that text can become, and the one after the last.
        seed, rows: of the random numbers.

    Returns:
        What the model reads, and which positions it is asked for, [B, S] bool.
    """
    width, (first, end) = tokens.size(1), pieces
    asked = (uniform_hash(seed, rows, PREDICT, width) < share) & text
    how = uniform_hash(seed, rows, REPLACE, width)
    other = first + (uniform_hash(seed, rows, PIECE, width) * (end - first)).long().clamp(
        max=end - first - 1
    )
    changed = torch.where(how < 0.8, MASK, torch.where(how < 0.9, other, tokens))
    return torch.where(asked, changed, tokens), asked
