"""Beam search in groups: the loop that `beam` (one group) and `diverse` share.

The beams of a sentence belong to groups of equal width W. At a step the groups choose one after
another. The candidates of a group are END and the pieces after each of its live prefixes. An END
among its W best candidates finishes a hypothesis; the W best others live on. At the `max_length`
of a sentence END is the only candidate. Of equal candidates the lower beam, then the lower id,
goes first.

Legend: B sentences still searched, G groups, W beams of a group, N = G W beams, T most tokens,
V vocabulary, K candidates.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from mt.decoding.candidates import (
    NEG_INF,
    RankingConfig,
    cannot_improve,
    forbid_end,
    forced_log_probs,
    forced_tokens,
    length_divisor,
    log_softmax,
    mask_special_tokens,
    penalize_repetition,
    rank_hypotheses,
    sentences_to_keep,
    should_sync,
    sort_by_score,
    top_k,
    top_pieces,
)
from mt.decoding.types import Decoder, Hypotheses, Request
from mt.errors import ConfigError
from mt.special_tokens import BEGIN, END, FIRST_PIECE


@dataclass
class BeamState:
    """The prefixes that live."""

    rows: Tensor
    """[B] sentence of the request."""
    num_finished: Tensor
    """[B, G] hypotheses that have ended."""
    scores: Tensor
    """[B, N] log-probability; -inf where no prefix lives."""
    tokens: Tensor
    """[B, N, T]."""
    log_probs: Tensor
    """[B, N, T] of each token."""
    forced: Tensor
    """[B, T] the only token allowed at a step, or -1."""

    def select_sentences(self, sentences: Tensor) -> None:
        """Keep only these sentences [B']."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name)[sentences])


@dataclass
class Candidates:
    """Continuations of a sentence's beams, best first; each [B, K]."""

    scores: Tensor
    origins: Tensor
    """Beam that the candidate continues."""
    tokens: Tensor
    log_probs: Tensor

    def take(self, order: Tensor) -> Candidates:
        """The candidates at the places `order` [B, K']."""
        return Candidates(*(getattr(self, each.name).gather(1, order) for each in fields(self)))

    @staticmethod
    def concatenate(parts: list[Candidates], width: int) -> Candidates:
        """The first `width` candidates of each part."""
        columns = ([getattr(p, each.name)[:, :width] for p in parts] for each in fields(Candidates))
        return Candidates(*(c[0] if len(c) == 1 else torch.cat(c, dim=1) for c in columns))


@dataclass(frozen=True)
class BeamSearch:
    """A `Search` with beams in groups."""

    config: RankingConfig
    beams: int
    """N."""
    groups: int = 1
    """G."""
    diversity: float = 0.0
    """Penalty of a candidate for each beam of an earlier group that grows by the same token."""
    enough: int | None = None
    """Finished hypotheses that end a group; None: it ends when none can improve."""

    @property
    def width(self) -> int:
        """W."""
        return self.beams // self.groups

    def __call__(self, decoder: Decoder, request: Request) -> Hypotheses:
        """The `n_best` best hypotheses of each sentence.

        Raises:
            ConfigError: there are fewer beams than hypotheses to find, or a prefix is too long.
        """
        live = self._empty_beams(request)
        finished = Hypotheses(
            live.tokens.clone(), torch.full_like(live.scores, NEG_INF), live.log_probs.clone()
        )
        state = decoder.start(request.source, self.beams, request.max_lengths)
        is_forced = (live.forced >= 0).any(dim=0).tolist()
        last = live.tokens.new_full((len(live.rows), self.beams), BEGIN)  # [B, N]
        own = torch.arange(self.beams, device=last.device)  # [N]
        end = 0
        for step in range(len(is_forced)):
            end = step + 1
            logits = decoder.step(state, last)  # [B, N, V]
            too_short = step < request.min_length
            log_probs, ids = self._continue(
                decoder, state, logits, live, step, is_forced[step], too_short
            )
            best = finished.scores[live.rows], request.max_lengths[live.rows]
            ends, closing, survivors = self._select(live, log_probs, ids, *best)
            stopped = (survivors.scores == NEG_INF).all(dim=1)  # [B]
            survivors.origins = survivors.origins.where(survivors.scores != NEG_INF, own)
            moved = (survivors.origins != own).any()
            closes, stops, moves = 1, 0, 1
            if should_sync(step, last.device):  # the only wait of the host for the device
                closes, stops, moves = torch.stack((closing.sum(), stopped.sum(), moved)).tolist()
            if closes:
                self._finish(finished, live, ends, closing, step)
            if stops == len(live.rows):
                break
            _grow(live, survivors, step, bool(moves))
            origins = survivors.origins
            left = sentences_to_keep(stopped, stops)
            if left is not None:
                live.select_sentences(left)
                origins = origins[left]
                decoder.select_sentences(state, left)
            if moves:
                decoder.reorder(state, origins)
            last = live.tokens[:, :, step]
        result = Hypotheses(
            finished.tokens[:, :, :end], finished.scores, finished.log_probabilities[:, :, :end]
        )
        if self.groups > 1:
            result = _drop_duplicates(result)
        return rank_hypotheses(self.config, decoder, request, result)

    def _empty_beams(self, request: Request) -> BeamState:
        """One empty live prefix for each group of each sentence."""
        if request.n_best > self.beams:
            what = f"{self.beams} beams cannot give {request.n_best} hypotheses"
            raise ConfigError("SEARCH", "search.beams", what, "ask for fewer, or set more beams")
        forced = forced_tokens(request)
        sentences, longest = forced.shape
        scores = torch.full((sentences, self.beams), NEG_INF, device=forced.device)
        scores[:, :: self.width] = 0
        tokens = forced.new_zeros(sentences, self.beams, longest)
        rows = torch.arange(sentences, device=forced.device)
        num_finished = rows.new_zeros(sentences, self.groups)
        return BeamState(rows, num_finished, scores, tokens, tokens.float(), forced)

    def _continue(
        self, decoder: Decoder, state: Any, logits: Tensor, live: BeamState, step: int,
        is_forced: bool, too_short: bool,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Log-probabilities and ids [B, N, K] of what may follow; ids None: of the vocabulary."""
        forced = live.forced[:, step]
        if self.config.against_repetition:
            logits = logits.float() if self.groups == 1 else logits
            logits = penalize_repetition(self.config, logits, live.tokens[:, :, :step], forced)
        if self.groups > 1:  # any piece may be the best after the penalty
            every = mask_special_tokens(log_softmax(logits), forced)  # [B, N, V]
            every = every.nan_to_num_(nan=NEG_INF, neginf=NEG_INF)
            if too_short:
                every[..., END] = forbid_end(every[..., FIRST_PIECE:], every[..., END], forced)
            return every, None
        log_probs, ids = top_pieces(decoder, state, logits, self.width)
        if too_short:
            log_probs[..., 0] = forbid_end(log_probs[..., 1:], log_probs[..., 0], forced)
        if is_forced:
            value, token = forced_log_probs(decoder, state, logits, forced, log_probs, ids)
            only = (forced >= 0)[:, None]  # [B, 1]
            log_probs = log_probs.masked_fill(only[..., None], NEG_INF)
            log_probs[..., 0] = value.where(only, log_probs[..., 0])
            ids[..., 0] = token.where(only, ids[..., 0])
        return log_probs, ids

    def _select(
        self, live: BeamState, log_probs: Tensor, ids: Tensor | None, finished: Tensor,
        longest: Tensor,
    ) -> tuple[Candidates, Tensor, Candidates]:  # fmt: skip
        """N candidates that may end, which of them do [B, N], and the N survivors.

        Args:
            live: the prefixes, whose finished hypotheses are counted.
            log_probs, ids: see `_continue`.
            finished: [B, N] scores of the finished hypotheses.
            longest: [B] most tokens.
        """
        width, ends, closings, survivors = self.width, [], [], []
        taken = torch.zeros_like(log_probs[:, 0])  # [B, V] beams that grow by a token
        for group in range(self.groups):
            part = slice(group * width, (group + 1) * width)
            own = live.scores[:, part], log_probs[:, part]
            if ids is not None:
                best = _rank_pieces(*own, ids[:, part], 2 * width)
            else:
                best = _rank_all(*own, self.diversity * taken, 2 * width)
                best.origins = best.origins + part.start
            ending = best.tokens == END  # [B, 2W]
            closing = ending[:, :width] & (best.scores[:, :width] != NEG_INF)  # [B, W]
            chosen = best.take(ending.int().argsort(dim=1, stable=True)[:, :width])  # [B, W]
            live.num_finished[:, group] += closing.sum(dim=1)
            if self.enough is None:
                done = cannot_improve(self.config, finished[:, part], chosen.scores, longest)
            else:
                done = live.num_finished[:, group] >= self.enough  # [B]
            chosen.scores = chosen.scores.masked_fill(done[:, None], NEG_INF)
            if self.groups > 1:
                taken.scatter_add_(1, chosen.tokens, (chosen.scores != NEG_INF).float())
            ends.append(best)
            closings.append(closing)
            survivors.append(chosen)
        best, chosen = (Candidates.concatenate(each, width) for each in (ends, survivors))
        return best, torch.cat(closings, dim=1), chosen

    def _finish(
        self, finished: Hypotheses, live: BeamState, ends: Candidates, closing: Tensor, step: int
    ) -> None:
        """Add the `ends` where `closing` [B, N]; the best W of each group stay finished."""

        def pool(old: Tensor, new: Tensor) -> Tensor:  # [B, N, ...] each -> [B, G, 2W, ...]
            old, new = (x.unflatten(1, (self.groups, self.width)) for x in (old, new))
            return torch.cat((old, new), dim=2)

        scores = ends.scores / length_divisor(self.config, step + 1.0)
        both = pool(finished.scores[live.rows], scores.masked_fill(~closing, NEG_INF))
        order = both.argsort(dim=2, descending=True, stable=True)[:, :, : self.width]  # [B, G, W]
        finished.scores[live.rows] = both.gather(2, order).flatten(1, 2)
        index = order[..., None].expand(-1, -1, -1, step + 1)
        for done, kept, new in (
            (finished.tokens, live.tokens, ends.tokens),
            (finished.log_probabilities, live.log_probs, ends.log_probs),
        ):
            ended = torch.cat((_prefixes(kept, ends.origins, step), new[..., None]), dim=2)
            ended = ended.masked_fill(~closing[..., None], 0)  # [B, N, step+1]
            pooled = pool(done[live.rows, :, : step + 1], ended)
            done[live.rows, :, : step + 1] = pooled.gather(2, index).flatten(1, 2)


def _rank_pieces(scores: Tensor, log_probs: Tensor, ids: Tensor, count: int) -> Candidates:
    """The best `count` of scores [B, W] + log_probs [B, W, K], whose tokens are ids [B, W, K]."""
    totals = (scores[..., None] + log_probs).flatten(1)  # [B, W*K]
    best = totals.sort(dim=1, descending=True, stable=True)
    places = best.indices[:, :count]
    return Candidates(
        scores=best.values[:, :count],
        origins=places.div(ids.shape[-1], rounding_mode="floor"),
        tokens=ids.flatten(1).gather(1, places),
        log_probs=log_probs.flatten(1).gather(1, places),
    )


def _rank_all(scores: Tensor, log_probs: Tensor, penalty: Tensor, count: int) -> Candidates:
    """The best `count` of scores [B, W] + log_probs [B, W, V] - penalty [B, V]."""
    totals = scores[..., None] + log_probs
    ranked, places = top_k((totals - penalty[:, None]).flatten(1), count)  # [B, count]
    return Candidates(
        scores=totals.flatten(1).gather(1, places).masked_fill(ranked == NEG_INF, NEG_INF),
        origins=places.div(log_probs.shape[-1], rounding_mode="floor"),
        tokens=places % log_probs.shape[-1],
        log_probs=log_probs.flatten(1).gather(1, places),
    )


def _grow(live: BeamState, chosen: Candidates, step: int, moves: bool) -> None:
    """Beam n becomes the prefix of `chosen.origins[:, n]` with one more token."""
    if moves:
        for kept in (live.tokens, live.log_probs):
            kept[:, :, :step] = _prefixes(kept, chosen.origins, step)
    live.tokens[:, :, step], live.log_probs[:, :, step] = chosen.tokens, chosen.log_probs
    live.scores = chosen.scores


def _prefixes(kept: Tensor, origins: Tensor, step: int) -> Tensor:
    """[B, N, step] the beginnings of the beams `origins` [B, N]."""
    return kept[:, :, :step].gather(1, origins[..., None].expand(-1, -1, step))


def _drop_duplicates(result: Hypotheses) -> Hypotheses:
    """Drop hypotheses that an earlier group has; the best first."""
    tokens = result.tokens  # [B, N, T]
    same = (tokens[:, :, None] == tokens[:, None]).all(dim=-1)  # [B, N, N]
    again = same.tril(diagonal=-1).any(dim=2)  # [B, N]
    return sort_by_score(result.scores.masked_fill(again, NEG_INF), result)
