"""What searches share: which candidates a hypothesis may grow by, and the best of them.

Legend: B sentences still searched, N beams, T most tokens, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mt.config.schema import SearchConfig
from mt.decoding.batching import rounded_batch_size
from mt.decoding.types import Decoder, Hypotheses, Request
from mt.errors import ConfigError
from mt.special_tokens import END, FIRST_PIECE, PAD

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NEG_INF = float("-inf")
EXTRA_CANDIDATES = 3
"""Candidates that are sharpened beyond those that are wanted."""
CACHED = 128
"""Rows of the vocabulary's size that a CPU's cache holds."""
SYNC_EVERY = {"cpu": 1, "cuda": 4}
"""Steps after which a search asks whether it is done, for which a device must have finished."""
BLOCK = 64
"""Values whose largest is found first, when the best of many are looked for."""
UNCOVERED = 1e-9
"""The least coverage of a source position, so that one never looked at costs something finite."""


class RepetitionConfig(SearchConfig):
    """What a search may have against repetitions. The scores are those of the changed model."""

    no_repeat_ngram: int = Field(0, ge=0)
    """No n-gram of so many tokens occurs twice in a hypothesis; 0: any may. Forced prefixes may."""
    repetition_penalty: float = Field(1.0, gt=0)
    """Logits of tokens already there: positive ones are divided by this, negative multiplied."""

    @property
    def against_repetition(self) -> bool:
        """Whether `penalize_repetition` would change anything."""
        return self.no_repeat_ngram > 0 or self.repetition_penalty != 1.0


class RankingConfig(RepetitionConfig):
    """What a search that compares ended hypotheses ranks them by."""

    length_penalty: float = Field(1.0, ge=0)
    """Exponent a of the length: higher favours longer translations, 0 ignores length."""
    length_norm: Literal["power", "gnmt"] = "power"
    """The log-probability is divided by length**a (`power`) or ((5 + length) / 6)**a (`gnmt`)."""
    coverage_penalty: float = Field(0.0, ge=0)
    """Weight of the log of the attention that source pieces lack, in the last ranking; 0: none."""


# ------------------------------------------------------------------ what may come next


def forced_tokens(request: Request) -> Tensor:
    """[B, T] the only token allowed at a step: those of a prefix, END at the last; else -1.

    Raises:
        ConfigError: a prefix leaves no room for END.
    """
    import torch

    lengths: list[int] = request.max_lengths.tolist()
    forced = torch.full((len(lengths), max(lengths, default=0)), -1, dtype=torch.long)
    for row, prefix in enumerate(request.prefixes or ()):
        if len(prefix) >= lengths[row]:
            what = f"a prefix of {len(prefix)} tokens leaves no room in {lengths[row]}"
            raise ConfigError("SEARCH", "search.max_length_extra", what, "allow more length")
        forced[row, : len(prefix)] = torch.tensor(prefix, dtype=torch.long)
    forced = forced.to(request.max_lengths.device)  # on which nothing was waited for
    return forced.scatter_(1, request.max_lengths[:, None].long() - 1, END)


def mask_special_tokens(logits: Tensor, forced: Tensor | None = None) -> Tensor:
    """Logits [B, N, V], -inf where no token of a hypothesis can be: only END and text is.

    Args:
        logits: [B, N, V].
        forced: [B] the only token allowed in a sentence, or -1; None: any, everywhere.
    """
    import torch

    kept = torch.full_like(logits, NEG_INF)
    kept[..., END] = logits[..., END]
    kept[..., FIRST_PIECE:] = logits[..., FIRST_PIECE:]
    if forced is None:
        return kept
    wanted = forced.clamp(min=0)[:, None, None].expand_as(logits[..., :1])  # [B, N, 1]
    alone = torch.full_like(logits, NEG_INF).scatter(-1, wanted, logits.gather(-1, wanted))
    return alone.where((forced >= 0)[:, None, None], kept)


def penalize_repetition(
    config: RepetitionConfig, logits: Tensor, tokens: Tensor, forced: Tensor
) -> Tensor:
    """Logits [B, N, V] after the repetition penalty and the blocking of n-grams.

    Both are CTranslate2's: the penalty of CTRL (Keskar et al. 2019, section 4.1), once a token,
    and blocking (Paulus et al. 2018, section 2.5) before the softmax, so that what is left sums
    to one. END is never blocked: where nothing else is left, the hypothesis ends.

    Args:
        config: how much.
        logits: [B, N, V].
        tokens: [B, N, t] what each hypothesis holds so far, its prefix included.
        forced: [B] the token that must come now, and so is not blocked, or -1.
    """
    penalty, size = config.repetition_penalty, config.no_repeat_ngram
    if penalty != 1.0 and tokens.shape[-1]:
        seen = logits.gather(-1, tokens)  # [B, N, t]
        logits = logits.scatter(-1, tokens, (seen * penalty).where(seen < 0, seen / penalty))
    if 0 < size <= tokens.shape[-1]:
        ngrams = tokens.unfold(-1, size, 1)  # [B, N, t-size+1, size]
        context = tokens[..., None, tokens.shape[-1] - size + 1 :]  # [B, N, 1, size-1]
        following = ngrams[..., -1]  # [B, N, t-size+1]
        blocked = (ngrams[..., :-1] == context).all(dim=-1) & (following != forced[:, None, None])
        least = logits.new_full(following.shape, -NEG_INF).masked_fill(blocked, NEG_INF)
        logits = logits.scatter_reduce(-1, following, least, "amin")
    return logits


def log_probs(logits: Tensor) -> Tensor:
    """Log-probabilities [..., V] in fp32; a row without any token that can be is NaN.

    One call that normalises everything: on a CPU it takes half the time of a log-sum-exp alone.
    """
    import torch

    return logits.log_softmax(dim=-1, dtype=torch.float32)


def top_pieces(decoder: Decoder, state: Any, logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities and ids [B, N, K] of END, first, and of at least `count` best pieces.

    Args:
        decoder: what gave the logits, and can recompute_in_fp32 them.
        state: its state.
        logits: [B, N, V].
        count: how many pieces; some more are looked at, lest fewer bits lose one.
    """
    import torch

    few = logits.dtype != torch.float32
    own = getattr(decoder, "top_k", None)  # some decoders have a quicker way to the same
    quick = None if own is None else own(state, logits, count + EXTRA_CANDIDATES * few)
    gains, ids = quick or top_k_in_blocks(logits, count + EXTRA_CANDIDATES * few)
    if few:
        rough = logits.gather(-1, ids).float()
        off = decoder.recompute_in_fp32(state, ids, rough) - rough  # [B, N, K]
        # The normaliser, too, is mostly made of these.
        total = 1 + (gains.exp() * off.expm1()).sum(dim=-1, keepdim=True)
        gains = gains + off - total.log()
    return gains.nan_to_num_(nan=NEG_INF, neginf=NEG_INF), ids


def top_k_in_blocks(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities and ids [B, N, K] of END, first, and of the `count` best pieces."""
    import torch

    # Some sentences at a time, so that what is computed of them is still in the cache when read.
    step = max(1, CACHED // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    found = [_top_k_in_blocks(part, count) for part in logits.split(step)]
    gains, ids = (torch.cat(each) for each in zip(*found, strict=True))
    return gains, ids


def _top_k_in_blocks(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    import torch

    every = log_probs(logits)  # [B, N, V]
    gains, ids = top_k(every[..., FIRST_PIECE:], count)
    gains = torch.cat((every[..., END, None], gains), dim=-1)
    return gains, torch.cat((torch.full_like(ids[..., :1], END), ids + FIRST_PIECE), dim=-1)


def should_sync(step: int, device: torch.device) -> bool:
    """Whether a search looks, after this step, at what the device found.

    When it does not, it goes on as if something had happened: more work, the same result.
    """
    return (step + 1) % SYNC_EVERY.get(device.type, 1) == 0


def sentences_to_keep(stopped: Tensor, stops: int) -> Tensor | None:
    """Which sentences [B'], ascending, a batch goes on with, or None: with all of them.

    Those that have not stopped, and as many others as make a size that comes often.

    Args:
        stopped: [B] whether a sentence needs no more.
        stops: how many of them.
    """
    count = len(stopped)
    size = rounded_batch_size(count - stops)
    if size == count or stops * 4 < count:  # a smaller batch must be worth its copies
        return None
    return stopped.byte().argsort(stable=True)[:size].sort().values


def forced_log_probs(
    decoder: Decoder, state: Any, logits: Tensor, forced: Tensor, gains: Tensor, ids: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and ids [B, N] of the forced tokens [B]; of any where it is -1.

    Args:
        decoder, state, logits: see `top_pieces`.
        forced: [B].
        gains, ids: [B, N, K] what `top_pieces` gave.
    """
    import torch

    wanted = forced.clamp(min=0)[:, None].expand(logits.shape[:-1])  # [B, N]
    if logits.dtype == torch.float32:
        told = log_probs(logits).gather(-1, wanted[..., None])[..., 0]
    else:  # as much less than the best piece's as its sharpened logit is
        best, place = gains.max(dim=-1, keepdim=True)  # [B, N, 1]
        both = torch.cat((ids.gather(-1, place), wanted[..., None]), dim=-1)
        exact = decoder.recompute_in_fp32(state, both, logits.gather(-1, both).float())  # [B, N, 2]
        told = best[..., 0] + exact[..., 1] - exact[..., 0]
    return told.nan_to_num(nan=NEG_INF, neginf=NEG_INF), wanted


def top_k(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of fp32 `values` [..., V] and their places, of equal ones the first.

    Of many values only the blocks with the `count` largest maxima are looked into: no other can
    hold one of the largest, and the maxima cost one fast pass.
    """
    import torch

    size = values.shape[-1]
    if size < 4 * count * BLOCK:
        places = _first_largest(values, torch.arange(size, device=values.device), min(count, size))
        return values.gather(-1, places), places
    whole = size // BLOCK * BLOCK
    blocks = values[..., :whole].unflatten(-1, (-1, BLOCK))  # [..., V/BLOCK, BLOCK]
    numbers = torch.arange(blocks.shape[-2], device=values.device)
    chosen = _first_largest(blocks.amax(dim=-1), numbers, count)[..., None]  # [..., count, 1]
    inside = torch.arange(BLOCK, device=values.device)
    ids = (chosen * BLOCK + inside).flatten(-2)  # [..., count*BLOCK]
    held = blocks.gather(-2, chosen.expand(*chosen.shape[:-1], BLOCK)).flatten(-2)
    if whole < size:
        rest = torch.arange(whole, size, device=values.device)
        ids = torch.cat((ids, rest.expand(*ids.shape[:-1], -1)), dim=-1)
        held = torch.cat((held, values[..., whole:]), dim=-1)
    places = _first_largest(held, ids, count)
    return held.gather(-1, places), ids.gather(-1, places)


def _first_largest(values: Tensor, ids: Tensor, count: int) -> Tensor:
    """Places of the `count` largest of fp32 `values` [..., V], of equal ones the lowest `ids`.

    `topk` alone chooses among equal values as it likes; so what it gets is whole numbers, the
    value's bits above the id's, of which no two are equal.
    """
    import torch

    bits = (values.float() + 0.0).view(torch.int32).long()  # of -0.0 it makes 0.0
    ordered = bits ^ ((bits >> 63) & 0x7FFFFFFF)  # as large as the value is
    return ((ordered << 32) - ids).topk(count, dim=-1).indices


# ------------------------------------------------------------------ which are better


def length_divisor(config: RankingConfig, length: Tensor | float) -> Tensor | float:
    """What the log-probability of a hypothesis of this length is divided by to rank it."""
    norm = length if config.length_norm == "power" else (length + 5.0) / 6
    return norm**config.length_penalty


def cannot_improve(
    config: RankingConfig, finished: Tensor, live: Tensor, longest: Tensor
) -> Tensor:
    """[B] whether no live prefix can become better than the worst of the finished.

    A prefix only loses probability as it grows, so that it ends at best with what it has now,
    divided by the divisor of the greatest length.

    Args:
        config: how hypotheses are ranked.
        finished: [B, N] length-penalised scores, -inf where there is none yet.
        live: [B, N] log-probability of the prefixes, -inf where none lives.
        longest: [B] the greatest length.
    """
    bound = live.amax(dim=1) / length_divisor(config, longest.to(live.dtype))
    least = finished.amin(dim=1)
    return (least != NEG_INF) & (bound <= least)


def rank_with_coverage(
    weight: float, decoder: Decoder, source: Tensor, found: Hypotheses
) -> Hypotheses:
    """Hypotheses ranked anew with the coverage penalty of Wu et al. 2016, equation 14.

    Added to a score is `weight` times the sum, over source positions, of log(min(c, 1)), where c
    is the attention that the position got from all tokens of the hypothesis.

    Args:
        weight: the paper's beta.
        decoder: whose attention counts.
        source: [B, S].
        found: tokens [B, N, T].
    """
    if not found.tokens.numel():
        return found
    attention = decoder.align(source, found.tokens)  # [B, N, T, S]
    real = (found.tokens != PAD)[..., None]  # [B, N, T, 1]
    coverage = attention.float().masked_fill(~real, 0).sum(dim=2)  # [B, N, S]
    lacking = coverage.clamp(UNCOVERED, 1).log().masked_fill((source == PAD)[:, None], 0)
    return sort_by_score(found.scores + weight * lacking.sum(dim=-1), found)


def rank_hypotheses(
    config: RankingConfig, decoder: Decoder, request: Request, found: Hypotheses
) -> Hypotheses:
    """The `n_best` best of hypotheses that are sorted, by coverage, too, when it counts."""
    if config.coverage_penalty:
        found = rank_with_coverage(config.coverage_penalty, decoder, request.source, found)
    n = request.n_best
    return Hypotheses(found.tokens[:, :n], found.scores[:, :n], found.log_probabilities[:, :n])


def sort_by_score(scores: Tensor, found: Hypotheses) -> Hypotheses:
    """The hypotheses with these scores [B, N], best first; what has -inf is none."""
    order = scores.argsort(dim=1, descending=True, stable=True)  # [B, N]
    places = order[..., None].expand_as(found.tokens)
    scores = scores.gather(1, order)
    lost = (scores == NEG_INF)[..., None]
    return Hypotheses(
        tokens=found.tokens.gather(1, places).masked_fill(lost, PAD),
        scores=scores,
        log_probabilities=found.log_probabilities.gather(1, places).masked_fill(lost, 0),
    )
