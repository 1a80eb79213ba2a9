"""What searches share: which tokens may come next, the best of them, and how hypotheses rank.

Legend: B sentences still searched, N beams, T most tokens, V vocabulary, K candidates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mt.config.schema import SearchConfig
from mt.config.section import MAX_FACTOR
from mt.decoding.batching import rounded_batch_size
from mt.decoding.types import Decoder, Hypotheses, Request
from mt.errors import ConfigError
from mt.special_tokens import END, FIRST_PIECE, PAD

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NEG_INF = float("-inf")
EXTRA_CANDIDATES = 3
"""Candidates beyond the requested number that are recomputed in fp32."""
CACHED = 128
"""Rows of the vocabulary's size that fit a CPU's cache."""
SYNC_EVERY = {"cpu": 1, "cuda": 4}
"""Steps between two reads from the device, each of which waits for it."""
BLOCK = 64
"""Values of a block, whose largest `top_k` finds first."""
UNCOVERED = 1e-9
"""The least coverage of a source position, so that one without attention costs something finite."""


class RepetitionConfig(SearchConfig):
    """What a search may have against repetitions. The scores are those of the changed model."""

    no_repeat_ngram: int = Field(0, ge=0, le=1000)
    """No n-gram of this many tokens occurs twice, but for those of a forced prefix; 0: any may."""
    repetition_penalty: float = Field(1.0, gt=0, le=1000)
    """Logits of tokens already there: positive ones are divided by this, negative multiplied."""

    @property
    def against_repetition(self) -> bool:
        """Whether `penalize_repetition` changes anything."""
        return self.no_repeat_ngram > 0 or self.repetition_penalty != 1.0


class RankingConfig(RepetitionConfig):
    """What a search that compares ended hypotheses ranks them by."""

    length_penalty: float = Field(1.0, ge=0, le=10)
    """Exponent a of the length: higher favours longer translations, 0 ignores length. Up to 10,
    so that the power of a length stays within fp32."""
    length_norm: Literal["power", "gnmt"] = "power"
    """The log-probability is divided by length**a (`power`) or ((5 + length) / 6)**a (`gnmt`)."""
    coverage_penalty: float = Field(0.0, ge=0, le=MAX_FACTOR)
    """Weight of the log of the attention that source pieces lack, in the last ranking; 0: none."""


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
    forced = forced.to(request.max_lengths.device)
    return forced.scatter_(1, request.max_lengths[:, None].long() - 1, END)


def mask_special_tokens(logits: Tensor, forced: Tensor) -> Tensor:
    """Logits [B, N, V], -inf but for END and text, or for the forced token [B] where not -1."""
    import torch

    kept = torch.full_like(logits, NEG_INF)
    kept[..., END] = logits[..., END]
    kept[..., FIRST_PIECE:] = logits[..., FIRST_PIECE:]
    only = forced.clamp(min=0)[:, None, None].expand_as(logits[..., :1])  # [B, N, 1]
    alone = torch.full_like(logits, NEG_INF).scatter(-1, only, logits.gather(-1, only))
    return alone.where((forced >= 0)[:, None, None], kept)


def forbid_end(log_probs: Tensor, ends: Tensor, forced: Tensor) -> Tensor:
    """The log-probabilities [B, N] of END in `ends`, -inf where a hypothesis is too short for it.

    END stays possible where it is forced, and where nothing else is.

    Args:
        log_probs: [B, N, K] of all other candidates.
        forced: [B] the only token allowed, or -1.
    """
    possible = log_probs.amax(dim=-1) > NEG_INF  # [B, N]
    return ends.masked_fill(possible & (forced != END)[:, None], NEG_INF)


def penalize_repetition(
    config: RepetitionConfig, logits: Tensor, tokens: Tensor, forced: Tensor
) -> Tensor:
    """Logits [B, N, V] after the repetition penalty and the blocking of n-grams.

    Both are CTranslate2's: the penalty of CTRL (Keskar et al. 2019, section 4.1), once a token,
    and blocking (Paulus et al. 2018, section 2.5) before the softmax, so that the rest sums to
    one. END is never blocked: where nothing else is left, the hypothesis ends.

    Args:
        tokens: [B, N, t] of the hypotheses so far, prefixes included.
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


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities [..., V] in fp32; a row of -inf becomes NaN."""
    import torch

    # On a CPU this one call takes half the time of a log-sum-exp alone.
    return logits.log_softmax(dim=-1, dtype=torch.float32)


def top_pieces(decoder: Decoder, state: Any, logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities and ids [B, N, K] of END, first, and of at least `count` best pieces.

    Logits [B, N, V] in fewer than 32 bits are recomputed for a few more pieces than `count`.
    """
    import torch

    few_bits = logits.dtype != torch.float32
    count += EXTRA_CANDIDATES * few_bits
    own = getattr(decoder, "top_k", None)  # some decoders compute the same faster
    log_probs, ids = (own and own(state, logits, count)) or top_k_in_blocks(logits, count)
    if few_bits:
        rough = logits.gather(-1, ids).float()
        error = decoder.recompute_in_fp32(state, ids, rough) - rough  # [B, N, K]
        # These few make up most of the normaliser, too.
        total = 1 + (log_probs.exp() * error.expm1()).sum(dim=-1, keepdim=True)
        log_probs = log_probs + error - total.log()
    return log_probs.nan_to_num_(nan=NEG_INF, neginf=NEG_INF), ids


def top_k_in_blocks(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities and ids [B, N, K] of END, first, and of the `count` best pieces."""
    import torch

    # A few sentences at a time, whose log-probabilities are still in the CPU's cache when read.
    step = max(1, CACHED // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    best, places = [], []
    for part in logits.split(step):
        every = log_softmax(part)  # [b, N, V]
        values, ids = top_k(every[..., FIRST_PIECE:], count)
        best.append(torch.cat((every[..., END, None], values), dim=-1))
        places.append(torch.cat((torch.full_like(ids[..., :1], END), ids + FIRST_PIECE), dim=-1))
    return torch.cat(best), torch.cat(places)


def forced_log_probs(
    decoder: Decoder, state: Any, logits: Tensor, forced: Tensor, log_probs: Tensor, ids: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and ids [B, N] of the forced tokens [B]; of any token where it is -1.

    Args:
        log_probs, ids: [B, N, K] the result of `top_pieces` for these logits.
    """
    import torch

    tokens = forced.clamp(min=0)[:, None].expand(logits.shape[:-1])  # [B, N]
    if logits.dtype == torch.float32:
        values = log_softmax(logits).gather(-1, tokens[..., None])[..., 0]
    else:  # the best piece's, less the difference of their recomputed logits
        best, place = log_probs.max(dim=-1, keepdim=True)  # [B, N, 1]
        both = torch.cat((ids.gather(-1, place), tokens[..., None]), dim=-1)
        exact = decoder.recompute_in_fp32(state, both, logits.gather(-1, both).float())
        values = best[..., 0] + exact[..., 1] - exact[..., 0]
    return values.nan_to_num(nan=NEG_INF, neginf=NEG_INF), tokens


def top_k(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of fp32 `values` [..., V] and their places; of equal ones the first."""
    import torch

    # Only the blocks with the `count` largest maxima can contain them; finding these is fast.
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
    kept = blocks.gather(-2, chosen.expand(*chosen.shape[:-1], BLOCK)).flatten(-2)
    if whole < size:
        rest = torch.arange(whole, size, device=values.device)
        ids = torch.cat((ids, rest.expand(*ids.shape[:-1], -1)), dim=-1)
        kept = torch.cat((kept, values[..., whole:]), dim=-1)
    places = _first_largest(kept, ids, count)
    return kept.gather(-1, places), ids.gather(-1, places)


def _first_largest(values: Tensor, ids: Tensor, count: int) -> Tensor:
    """Places of the `count` largest of fp32 `values` [..., V], of equal ones the lowest `ids`."""
    import torch

    # `topk` orders equal values arbitrarily: give it distinct integers, value bits above id bits.
    bits = (values.float() + 0.0).view(torch.int32).long()  # -0.0 becomes 0.0
    ordered = bits ^ ((bits >> 63) & 0x7FFFFFFF)  # in the order of the values
    return ((ordered << 32) - ids).topk(count, dim=-1).indices


def should_sync(step: int, device: torch.device) -> bool:
    """Whether a search reads results from the device after this step.

    When it does not, it continues as if something had happened: more work, the same result.
    """
    return (step + 1) % SYNC_EVERY.get(device.type, 1) == 0


def sentences_to_keep(stopped: Tensor, stops: int) -> Tensor | None:
    """The sentences [B'], ascending, that a batch continues with; None: all of them.

    They are all but the `stops` ones that `stopped` [B] marks, filled up to a frequent size.
    """
    count = len(stopped)
    size = rounded_batch_size(count - stops)
    if size == count or stops * 4 < count:  # a smaller batch must be worth its copies
        return None
    return stopped.byte().argsort(stable=True)[:size].sort().values


def length_divisor(config: RankingConfig, length: Tensor | float) -> Tensor | float:
    """The divisor of the log-probability of a hypothesis of this length."""
    norm = length if config.length_norm == "power" else (length + 5.0) / 6
    return norm**config.length_penalty


def cannot_improve(
    config: RankingConfig, finished: Tensor, live: Tensor, longest: Tensor
) -> Tensor:
    """[B] whether no live prefix can become better than the worst finished hypothesis.

    A prefix only loses probability as it grows: at best it ends with what it has now, divided by
    the divisor of the greatest length.

    Args:
        finished: [B, N] length-penalised scores, -inf where there is none yet.
        live: [B, N] log-probability of the prefixes, -inf where none lives.
        longest: [B] the greatest length.
    """
    bound = live.amax(dim=1) / length_divisor(config, longest.to(live.dtype))
    least = finished.amin(dim=1)
    return (least != NEG_INF) & (bound <= least)


def rank_hypotheses(
    config: RankingConfig, decoder: Decoder, request: Request, result: Hypotheses
) -> Hypotheses:
    """The `n_best` best of sorted hypotheses, after the coverage penalty (Wu et al. 2016, eq. 14).

    It adds to a score `coverage_penalty` (the paper's beta) times the sum, over source positions,
    of log(min(c, 1)), where c is the attention to the position from all tokens of the hypothesis.
    """
    if config.coverage_penalty and result.tokens.numel():
        attention = decoder.align(request.source, result.tokens)  # [B, N, T, S]
        real = (result.tokens != PAD)[..., None]  # [B, N, T, 1]
        coverage = attention.float().masked_fill(~real, 0).sum(dim=2)  # [B, N, S]
        padding = (request.source == PAD)[:, None]
        lacking = coverage.clamp(UNCOVERED, 1).log().masked_fill(padding, 0).sum(dim=-1)
        result = sort_by_score(result.scores + config.coverage_penalty * lacking, result)
    return first_hypotheses(result, request.n_best)


def first_hypotheses(result: Hypotheses, n: int) -> Hypotheses:
    """The first `n` hypotheses of each sentence."""
    return Hypotheses(result.tokens[:, :n], result.scores[:, :n], result.log_probabilities[:, :n])


def sort_by_score(scores: Tensor, result: Hypotheses) -> Hypotheses:
    """The hypotheses with these scores [B, N], best first; none where the score is -inf."""
    order = scores.argsort(dim=1, descending=True, stable=True)  # [B, N]
    places = order[..., None].expand_as(result.tokens)
    scores = scores.gather(1, order)
    lost = (scores == NEG_INF)[..., None]
    return Hypotheses(
        tokens=result.tokens.gather(1, places).masked_fill(lost, PAD),
        scores=scores,
        log_probabilities=result.log_probabilities.gather(1, places).masked_fill(lost, 0),
    )
