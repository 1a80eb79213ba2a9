"""Greedy search: the most probable token at each step, until `</s>`.

The same as beam search with one beam, for less. Of equal tokens the lower id is taken; padding,
unknown, `<s>` and the reserved pieces never are. At the `max_length` of a sentence END is the only
candidate, so that every hypothesis ends in `</s>`.

Legend: B sentences still searched, T most tokens, V vocabulary; the one beam is an axis of 1.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from mt.decoding.candidates import (
    NEG_INF,
    RepetitionConfig,
    forbid_end,
    forced_log_probs,
    forced_tokens,
    penalize_repetition,
    sentences_to_keep,
    should_sync,
    top_k,
    top_pieces,
)
from mt.decoding.types import Decoder, Hypotheses, Request, Search
from mt.errors import ConfigError
from mt.special_tokens import BEGIN, END

if TYPE_CHECKING:
    from torch import Tensor


class Config(RepetitionConfig):
    """Takes the most probable token at each step; the score is the log-probability."""

    kind: str = "greedy"


def build(config: Config) -> Search:
    """The search of this configuration."""
    return partial(search, config)


def search(config: Config, decoder: Decoder, request: Request) -> Hypotheses:
    """The one hypothesis of each sentence.

    Raises:
        ConfigError: `n_best` is above 1, or a prefix is too long.
    """
    import torch

    if request.n_best > 1:
        what = f"greedy search cannot give {request.n_best} hypotheses"
        raise ConfigError("SEARCH", "search.kind", what, "set search.kind=beam, or do without")
    forced = forced_tokens(request)  # [B, T]
    prefixed = max(map(len, request.prefixes or ()), default=0)
    lengths, device = request.max_lengths, forced.device  # [B]
    tokens, log_probs = torch.zeros_like(forced), torch.zeros(forced.shape, device=device)
    state = decoder.start(request.source, 1, lengths)
    rows = torch.arange(len(forced), device=device)  # [B] sentence of each row
    last, ended = torch.full_like(rows, BEGIN), torch.zeros_like(rows, dtype=torch.bool)
    scores = torch.zeros(len(forced), device=device)
    end = 0
    for step in range(forced.shape[1]):
        end = step + 1
        logits = decoder.step(state, last[:, None])  # [B, 1, V]
        if config.against_repetition:
            past = tokens[rows, None, :step]  # [B, 1, t]
            logits = penalize_repetition(config, logits.float(), past, forced[rows, step])
        best, ids = top_pieces(decoder, state, logits, 1)  # [B, 1, K]
        if step < request.min_length:
            best[..., 0] = forbid_end(best[..., 1:], best[..., 0], forced[rows, step])
        value, last = _choose(best[:, 0], ids[:, 0], scores[rows], lengths[rows] == end)
        if step < prefixed:
            only = forced[rows, step]  # [B]
            own, token = forced_log_probs(decoder, state, logits, only, best, ids)  # [B, 1] each
            value, last = own[:, 0].where(only >= 0, value), token[:, 0].where(only >= 0, last)
        live = ~ended[rows]
        tokens[rows, step] = last.where(live, 0)
        log_probs[rows, step] = value.where(live, 0)
        scores[rows] += log_probs[rows, step]
        ended[rows] |= (last == END) | (scores[rows] == NEG_INF)
        stopped = ended[rows]
        stops = int(stopped.sum()) if should_sync(step, device) else 0
        if stops == len(rows):
            break
        left = sentences_to_keep(stopped, stops)
        if left is not None:
            rows, last = rows[left], last[left]
            decoder.select_sentences(state, left)
    lost = (scores == NEG_INF)[:, None]  # no continuation had any probability: no hypothesis
    tokens, log_probs = tokens.masked_fill(lost, 0), log_probs.masked_fill(lost, 0)
    return Hypotheses(tokens[:, None, :end], scores[:, None], log_probs[:, None, :end])


def _choose(
    log_probs: Tensor, ids: Tensor, scores: Tensor, must_end: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-probability and id [B] of the token that makes the most probable prefix.

    Prefixes are compared, not tokens: what rounding makes equal is equal to beam search, too.

    Args:
        log_probs, ids: [B, K] of END, first, and of the best pieces.
        scores: [B] log-probability of the prefixes.
        must_end: [B] where only END may come.
    """
    totals = (scores[:, None] + log_probs).masked_fill(must_end[:, None], NEG_INF)
    totals[:, 0] = (scores + log_probs[:, 0]).where(must_end, totals[:, 0])
    place = top_k(totals, 1)[1].masked_fill(must_end[:, None], 0)  # [B, 1]
    return log_probs.gather(1, place)[:, 0], ids.gather(1, place)[:, 0]
