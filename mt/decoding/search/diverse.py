"""Diverse beam search (Vijayakumar et al. 2018): groups of beams that avoid each other's tokens.

The beams are shared out to groups. At a step the groups choose one after another, each as beam
search does; but a candidate loses `diversity` for each beam of an earlier group that has just
grown by the same token (Hamming diversity). This decides only which beams live: scores are the
model's own. Ends are not counted: a group may end when others do.

One group is beam search. A hypothesis that several groups found is given once.

Legend: B sentences still searched, G groups, W beams of a group, N = G W beams, T most tokens,
V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from mt.decoding.candidates import (
    NEG_INF,
    BeamState,
    RankingConfig,
    empty_beams,
    length_divisor,
    log_probs,
    mask_special_tokens,
    penalize_repetition,
    rank_hypotheses,
    sentences_to_keep,
    should_sync,
    sort_by_score,
    top_k,
)
from mt.decoding.types import Decoder, Hypotheses, Request, Search
from mt.special_tokens import BEGIN, END

if TYPE_CHECKING:
    from torch import Tensor


class Config(RankingConfig):
    """Beam search whose n-best list differs in more than a word."""

    kind: str = "diverse"
    beams: int = Field(6, ge=1)
    """Hypotheses kept a sentence, of all groups."""
    groups: int = Field(3, ge=1)
    """Groups that the beams are shared out to, equally."""
    diversity: float = Field(0.5, ge=0)
    """What a candidate loses for each beam of an earlier group that took the same token."""

    @model_validator(mode="after")
    def _groups_share_the_beams(self) -> Config:
        if self.beams % self.groups:
            raise ValueError(f"groups: {self.groups} cannot share {self.beams} beams equally")
        return self


def build(config: Config) -> Search:
    """The search of this configuration."""
    return partial(search, config)


@dataclass
class _Choice:
    """What each beam of a group grows by."""

    scores: Tensor
    """[B, W]."""
    origins: Tensor
    """[B, W] beam of the group that it continues."""
    tokens: Tensor
    gains: Tensor


def search(config: Config, decoder: Decoder, request: Request) -> Hypotheses:
    """The `n_best` best hypotheses of each sentence, of all groups.

    Raises:
        ConfigError: more hypotheses than beams, or a prefix too long are asked for.
    """
    import torch

    groups, width = config.groups, config.beams // config.groups
    live = empty_beams(request, groups, width)
    finished = Hypotheses(  # nothing yet
        live.tokens.clone(), torch.full_like(live.scores, NEG_INF), live.gains.clone()
    )
    state = decoder.start(request.source, config.beams, request.max_lengths)
    own = torch.arange(config.beams, device=live.rows.device)  # [N]
    last = torch.full((len(live.rows), config.beams), BEGIN, device=live.rows.device)
    end = 0
    for step in range(live.tokens.shape[-1]):
        end = step + 1
        logits, forced = decoder.step(state, last), live.forced[:, step]
        if config.against_repetition:
            held = live.tokens[..., :step].flatten(1, 2)  # [B, N, t]
            logits = penalize_repetition(config, logits, held, forced)
        gains = mask_special_tokens(log_probs(logits), forced).nan_to_num_(
            nan=NEG_INF, neginf=NEG_INF
        )
        gains = gains.unflatten(1, (groups, width))  # [B, G, W, V]
        taken = torch.zeros_like(gains[:, 0, 0])  # [B, V] how often at this step
        choices = [_extend(config, live, finished, gains, taken, g, step) for g in range(groups)]
        chosen = _Choice(
            *(torch.stack([getattr(c, f.name) for c in choices], 1) for f in fields(_Choice))
        )  # [B, G, W] each
        stopped = (chosen.scores == NEG_INF).flatten(1).all(dim=1)  # [B]
        looks = should_sync(step, own.device)
        stops = int(stopped.sum()) if looks else 0
        if stops == len(live.rows):
            break
        _grow(live, chosen, step)
        first = torch.arange(groups, device=own.device)[:, None] * width  # [G, 1]
        origins = (chosen.origins + first).flatten(1).where(live.scores.flatten(1) != NEG_INF, own)
        left = sentences_to_keep(stopped, stops)
        if left is not None:
            live.keep(left)
            origins = origins[left]
            decoder.keep(state, left)
        if not looks or bool((origins != own).any()):
            decoder.reorder(state, origins)
        last = live.tokens[..., step].flatten(1)
    return _best(config, decoder, request, finished, end)


def _extend(
    config: Config, live: BeamState, finished: Hypotheses, gains: Tensor, taken: Tensor,
    group: int, step: int,
) -> _Choice:  # fmt: skip
    """How one group grows, given the tokens `taken` [B, V] by those before it, which it adds to.

    Its best 2W candidates hold W that do not end; an END among the first W is finished.
    """
    width, size = gains.shape[2:]
    totals = live.scores[:, group, :, None] + gains[:, group]  # [B, W, V]
    apart = totals - config.diversity * taken[:, None]
    ranked, places = top_k(apart.flatten(1), 2 * width)  # [B, 2W]
    best = _Choice(
        scores=totals.flatten(1).gather(1, places).masked_fill(ranked == NEG_INF, NEG_INF),
        origins=places.div(size, rounding_mode="floor"),
        tokens=places % size,
        gains=gains[:, group].flatten(1).gather(1, places),
    )
    ending = best.tokens == END
    closing = ending[:, :width] & (best.scores[:, :width] != NEG_INF)  # [B, W]
    live.found[:, group] += closing.sum(dim=1)
    _finish(config, finished, live, best, closing, group, step)
    order = ending.int().argsort(dim=1, stable=True)[:, :width]  # [B, W]
    chosen = _Choice(*(getattr(best, each.name).gather(1, order) for each in fields(best)))
    done = live.found[:, group] >= width  # [B]
    chosen.scores = chosen.scores.masked_fill(done[:, None], NEG_INF)
    taken.scatter_add_(1, chosen.tokens, (chosen.scores != NEG_INF).float())
    return chosen


def _finish(
    config: Config, finished: Hypotheses, live: BeamState, best: _Choice, closing: Tensor,
    group: int, step: int,
) -> None:  # fmt: skip
    """Add those of the first W candidates that `closing` [B, W] marks; the best W stay."""
    import torch

    if should_sync(step, closing.device) and not bool(closing.any()):
        return
    width, rows = closing.shape[1], live.rows
    scores = best.scores[:, :width] / length_divisor(config, step + 1.0)
    pool = torch.cat(
        (finished.scores[rows, group], scores.masked_fill(~closing, NEG_INF)), dim=1
    )  # [B, 2W]
    order = pool.argsort(dim=1, descending=True, stable=True)[:, :width]  # [B, W]
    for done, kept, news in (
        (finished.tokens, live.tokens, best.tokens),
        (finished.log_probabilities, live.gains, best.gains),
    ):
        ended = _prefixes(kept[:, group], best.origins[:, :width])  # [B, W, T]
        ended[..., step] = news[:, :width]
        both = torch.cat((done[rows, group], ended.masked_fill(~closing[..., None], 0)), dim=1)
        done[rows, group] = both.gather(1, order[..., None].expand(-1, -1, both.shape[-1]))
    finished.scores[rows, group] = pool.gather(1, order)


def _prefixes(kept: Tensor, origins: Tensor) -> Tensor:
    """[..., W, T] the beams that `origins` [..., W] names."""
    return kept.gather(-2, origins[..., None].expand(*origins.shape, kept.shape[-1]))


def _grow(live: BeamState, chosen: _Choice, step: int) -> None:
    """Each beam becomes the prefix of its origin with one more token."""
    live.tokens = _prefixes(live.tokens, chosen.origins)
    live.gains = _prefixes(live.gains, chosen.origins)
    live.tokens[..., step], live.gains[..., step] = chosen.tokens, chosen.gains
    live.scores = chosen.scores


def _best(
    config: Config, decoder: Decoder, request: Request, finished: Hypotheses, end: int
) -> Hypotheses:
    """The best distinct hypotheses of all groups."""
    found = Hypotheses(
        finished.tokens.flatten(1, 2)[..., :end],
        finished.scores.flatten(1),
        finished.log_probabilities.flatten(1, 2)[..., :end],
    )
    tokens = found.tokens  # [B, N, T]
    same = (tokens[:, :, None] == tokens[:, None]).all(dim=-1)  # [B, N, N]
    again = same.tril(diagonal=-1).any(dim=2)  # [B, N] an earlier group has it
    found = sort_by_score(found.scores.masked_fill(again, NEG_INF), found)
    return rank_hypotheses(config, decoder, request, found)
