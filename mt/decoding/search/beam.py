"""Beam search: the N most probable prefixes of each sentence grow by one token a step.

At a step the candidates are, for each live prefix, END and its N best pieces. An END among the
N best candidates of a sentence finishes a hypothesis; the N best others live on. A sentence
stops when N hypotheses are finished or nothing lives. At its `max_length` END is the only
candidate, so that every hypothesis ends in `</s>`. Of equal candidates the lower beam, then the
lower id, goes first. Padding, unknown, `<s>` and the reserved pieces are no candidates.

Legend: B sentences still searched, N beams, T most tokens, V vocabulary, K candidates a beam.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from mt.decoding.candidates import (
    NEG_INF,
    BeamState,
    RankingConfig,
    cannot_improve,
    empty_beams,
    forced_log_probs,
    length_divisor,
    penalize_repetition,
    rank_hypotheses,
    sentences_to_keep,
    should_sync,
    top_pieces,
)
from mt.decoding.types import Decoder, Hypotheses, Request, Search
from mt.special_tokens import BEGIN, END

if TYPE_CHECKING:
    from torch import Tensor


class Config(RankingConfig):
    """Keeps several hypotheses and ranks those that ended by length-penalised probability."""

    kind: str = "beam"
    beams: int = Field(5, ge=1)
    """Hypotheses kept a sentence."""
    stop: Literal["finished", "bound"] = "finished"
    """A sentence ends with as many finished hypotheses as beams, or when none can be bettered."""
    patience: float = Field(1.0, gt=0)
    """With `stop: finished`: that many times as many finished hypotheses end a sentence."""

    @model_validator(mode="after")
    def _patience_counts(self) -> Config:
        if self.stop == "bound" and self.patience != 1.0:
            raise ValueError("patience: counts finished hypotheses, which `stop: bound` does not")
        return self


def build(config: Config) -> Search:
    """The search of this configuration."""
    return partial(search, config)


@dataclass
class _Choice:
    """The best 2N candidates of each sentence, best first; each [B, 2N]."""

    scores: Tensor
    origins: Tensor
    """Beam that the candidate continues."""
    tokens: Tensor
    gains: Tensor

    def take(self, order: Tensor) -> _Choice:
        return _Choice(*(getattr(self, each.name).gather(1, order) for each in fields(self)))


def search(config: Config, decoder: Decoder, request: Request) -> Hypotheses:
    """The `n_best` best hypotheses of each sentence.

    Raises:
        ConfigError: more hypotheses than beams, or a prefix too long are asked for.
    """
    import torch

    width = config.beams
    enough = max(1, round(width * config.patience))
    live = empty_beams(request, width)
    finished = Hypotheses(  # nothing yet
        live.tokens.clone(), torch.full_like(live.scores, NEG_INF), live.gains.clone()
    )
    state = decoder.start(request.source, width, request.max_lengths)
    limited = (live.forced >= 0).any(dim=0).tolist()
    last = live.tokens.new_full((len(live.rows), width), BEGIN)  # [B, N]
    own = torch.arange(width, device=last.device)  # [N]
    end = 0
    for step, is_limited in enumerate(limited):
        end = step + 1
        logits = decoder.step(state, last)  # [B, N, V]
        if config.against_repetition:
            held = live.tokens[:, :, :step]
            logits = penalize_repetition(config, logits.float(), held, live.forced[:, step])
        gains, ids = top_pieces(decoder, state, logits, width)
        if is_limited:
            only = live.forced[:, step]
            told, wanted = forced_log_probs(decoder, state, logits, only, gains, ids)
            gains, ids = _force(gains, ids, told, wanted, only)
        best = _rank(live.scores, gains, ids, 2 * width)
        ending = best.tokens == END  # [B, 2N]
        closing = ending[:, :width] & (best.scores[:, :width] != NEG_INF)  # [B, N]
        chosen = best.take(ending.int().argsort(dim=1, stable=True)[:, :width])  # [B, N] each
        live.found = live.found + closing.sum(dim=1)
        if config.stop == "finished":
            done = live.found >= enough  # [B]
        else:
            best_yet, longest = finished.scores[live.rows], request.max_lengths[live.rows]
            done = cannot_improve(config, best_yet, chosen.scores, longest)
        stopped = done | (chosen.scores == NEG_INF).all(dim=1)  # [B]
        chosen.scores = chosen.scores.masked_fill(stopped[:, None], NEG_INF)
        chosen.origins = chosen.origins.where(chosen.scores != NEG_INF, own)
        moved = (chosen.origins != own).any()
        closes, stops, moves = 1, 0, 1
        if should_sync(step, last.device):  # the one moment in which the host waits for the device
            closes, stops, moves = torch.stack((closing.sum(), stopped.sum(), moved)).tolist()
        if closes:
            _finish(config, finished, live, best.take(own.expand_as(closing)), closing, step)
        if stops == len(live.rows):
            break
        _grow(live, chosen, step, bool(moves))
        origins = chosen.origins
        left = sentences_to_keep(stopped, stops)
        if left is not None:
            live.keep(left)
            origins = origins[left]
            decoder.keep(state, left)
        if moves:
            decoder.reorder(state, origins)
        last = live.tokens[:, :, step]
    found = Hypotheses(
        finished.tokens[:, :, :end], finished.scores, finished.log_probabilities[:, :, :end]
    )
    return rank_hypotheses(config, decoder, request, found)


def _force(
    gains: Tensor, ids: Tensor, told: Tensor, wanted: Tensor, forced: Tensor
) -> tuple[Tensor, Tensor]:
    """The candidates [B, N, K], but where a token is forced that one only.

    Args:
        gains, ids: [B, N, K] log-probabilities and ids.
        told, wanted: [B, N] those of the forced tokens.
        forced: [B] the only token allowed in a sentence, or -1.
    """
    only = (forced >= 0)[:, None]  # [B, 1]
    gains = gains.masked_fill(only[..., None], NEG_INF)
    gains[..., 0] = told.where(only, gains[..., 0])
    ids[..., 0] = wanted.where(only, ids[..., 0])
    return gains, ids


def _rank(scores: Tensor, gains: Tensor, ids: Tensor, count: int) -> _Choice:
    """The best `count` of scores [B, N] + gains [B, N, K], whose tokens are ids [B, N, K]."""
    totals = (scores[..., None] + gains).flatten(1)  # [B, N*K]
    best = totals.sort(dim=1, descending=True, stable=True)
    places = best.indices[:, :count]
    return _Choice(
        scores=best.values[:, :count],
        origins=places.div(ids.shape[-1], rounding_mode="floor"),
        tokens=ids.flatten(1).gather(1, places),
        gains=gains.flatten(1).gather(1, places),
    )


def _grow(live: BeamState, chosen: _Choice, step: int, moves: bool) -> None:
    """Beam n becomes the prefix of `chosen.origins[:, n]` with one more token."""
    if moves:
        for kept in (live.tokens, live.gains):
            kept[:, :, :step] = _prefixes(kept, chosen.origins, step)
    live.tokens[:, :, step], live.gains[:, :, step] = chosen.tokens, chosen.gains
    live.scores = chosen.scores


def _prefixes(kept: Tensor, origins: Tensor, step: int) -> Tensor:
    """[B, N, step] the beginnings of the beams that `origins` [B, N] names."""
    return kept[:, :, :step].gather(1, origins[..., None].expand(-1, -1, step))


def _finish(
    config: Config, finished: Hypotheses, live: BeamState, ends: _Choice, closing: Tensor, step: int
) -> None:
    """Add those of `ends` [B, N] that `closing` [B, N] marks to the finished; the best N stay."""
    import torch

    scores = (ends.scores / length_divisor(config, step + 1.0)).masked_fill(~closing, NEG_INF)
    pool = torch.cat((finished.scores[live.rows], scores), dim=1)  # [B, 2N]
    order = pool.argsort(dim=1, descending=True, stable=True)[:, : scores.shape[1]]  # [B, N]
    for done, kept, news in (
        (finished.tokens, live.tokens, ends.tokens),
        (finished.log_probabilities, live.gains, ends.gains),
    ):
        ended = torch.cat((_prefixes(kept, ends.origins, step), news[..., None]), dim=2)
        ended = ended.masked_fill(~closing[..., None], 0)
        both = torch.cat((done[live.rows, :, : step + 1], ended), dim=1)  # [B, 2N, step+1]
        index = order[..., None].expand(-1, -1, step + 1)
        done[live.rows, :, : step + 1] = both.gather(1, index)
    finished.scores[live.rows] = pool.gather(1, order)
