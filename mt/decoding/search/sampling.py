"""Sampling: each token is drawn at random, by the probabilities of the model.

The logits are divided by `temperature`. Of the tokens then only the `top_k` best, the fewest with
`top_p` of the probability (Holtzman et al. 2020), and those of at least `epsilon` (Hewitt et al.
2022) are left, in this order; the best one always is.

A sample depends on its sentence, its seed and its number alone: a generator of the sentence's own
draws a uniform number for each token at the start, and the cumulative distribution over the ids
turns it into a token. Neither the batch nor the device matters.

The score of a sample is its log-probability by the whole model, unpenalised. Samples are sorted by
it and not made distinct: minimum Bayes risk counts equal ones.

Legend: B sentences still searched, N samples, T most tokens, V vocabulary, K tokens left.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from mt.config.section import MAX_FACTOR
from mt.decoding.candidates import (
    NEG_INF,
    RepetitionConfig,
    forbid_end,
    forced_tokens,
    log_softmax,
    mask_special_tokens,
    penalize_repetition,
    sentences_to_keep,
    should_sync,
    sort_by_score,
    top_k,
)
from mt.decoding.types import Decoder, Hypotheses, Request, Search
from mt.special_tokens import BEGIN, END, FIRST_PIECE, PAD

if TYPE_CHECKING:
    from torch import Tensor


class Config(RepetitionConfig):
    """Draws tokens at random; the n-best list consists of samples, the most probable first."""

    kind: str = "sampling"
    temperature: float = Field(1.0, gt=0, le=MAX_FACTOR)
    """The logits are divided by this: below 1 the likely becomes likelier."""
    top_k: int = Field(0, ge=0, lt=2**31)
    """Draw among this many most probable tokens; 0: all."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draw among the fewest tokens that have this probability together; 1: all."""
    epsilon: float = Field(0.0, ge=0, lt=1)
    """Draw among tokens of at least this probability; 0: all."""


def build(config: Config) -> Search:
    """The search of this configuration."""
    return partial(search, config)


def search(config: Config, decoder: Decoder, request: Request) -> Hypotheses:
    """The `n_best` samples of each sentence.

    Raises:
        ConfigError: a prefix is too long.
    """
    import torch

    forced = forced_tokens(request)  # [B, T]
    (count, longest), device = forced.shape, forced.device
    uniforms = _uniforms(request, longest)  # [B, N, T]
    shape = count, request.n_best, longest
    tokens = torch.zeros(shape, dtype=torch.long, device=device)
    log_probs, scores = torch.zeros(shape, device=device), torch.zeros(shape[:2], device=device)
    rows = torch.arange(count, device=device)  # [B] sentence of each row
    ended = torch.zeros(shape[:2], dtype=torch.bool, device=device)
    state = decoder.start(request.source, request.n_best, request.max_lengths)
    last = tokens.new_full(shape[:2], BEGIN)
    end = 0
    for step in range(longest):
        end = step + 1
        logits = decoder.step(state, last)  # [B, N, V]
        shaped, only = logits, forced[rows, step]  # only [B]
        if config.against_repetition:
            shaped = penalize_repetition(config, logits, tokens[rows, :, :step], only)
        choices = mask_special_tokens(shaped.float(), only)  # [B, N, V]
        if step < request.min_length:
            choices[..., END] = forbid_end(choices[..., FIRST_PIECE:], choices[..., END], only)
        last = _draw(config, choices, uniforms[rows, :, step])  # [B, N]
        nothing = choices.amax(dim=-1) == NEG_INF  # [B, N]
        value = log_softmax(logits).gather(-1, last[..., None])[..., 0]  # [B, N]
        value = value.nan_to_num(nan=NEG_INF, neginf=NEG_INF).masked_fill(nothing, NEG_INF)
        live = ~ended[rows]
        tokens[rows, :, step] = last.where(live, PAD)
        log_probs[rows, :, step] = value.where(live, 0)
        scores[rows] += log_probs[rows, :, step]  # in turn: a sum's rounding depends on its length
        ended[rows] |= (live & (value == NEG_INF)) | (last == END)
        stopped = ended[rows].all(dim=1)  # [B]
        stops = int(stopped.sum()) if should_sync(step, device) else 0
        if stops == len(rows):
            break
        left = sentences_to_keep(stopped, stops)
        if left is not None:
            rows, last = rows[left], last[left]
            decoder.select_sentences(state, left)
    return sort_by_score(scores, Hypotheses(tokens[..., :end], scores, log_probs[..., :end]))


def _uniforms(request: Request, longest: int) -> Tensor:
    """[B, N, T] numbers in [0, 1) by the seed of each sentence."""
    import torch

    lengths: list[int] = request.max_lengths.tolist()
    seeds = request.seeds or [1] * len(lengths)
    uniforms = torch.zeros((len(lengths), request.n_best, longest), dtype=torch.float64)
    for row, (seed, length) in enumerate(zip(seeds, lengths, strict=True)):
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.rand(request.n_best, length, generator=generator, dtype=torch.float64)
        uniforms[row, :, :length] = drawn
    return uniforms.to(request.source.device)


def _draw(config: Config, logits: Tensor, uniform: Tensor) -> Tensor:
    """The tokens [B, N] at which the cumulative distribution passes `uniform` [B, N]."""
    import torch

    probabilities = _probabilities(config, logits)  # [B, N, V]
    cumulative = probabilities.double().cumsum(dim=-1)
    mark = uniform[..., None] * cumulative[..., -1:]
    drawn = torch.searchsorted(cumulative, mark, right=True)  # [B, N, 1]
    # Rounding may pass the last possible token; where none is possible, END takes the place.
    possible = (probabilities > 0) * torch.arange(logits.shape[-1], device=logits.device)
    highest = possible.amax(dim=-1, keepdim=True)
    return drawn.minimum(highest.where(highest > 0, END))[..., 0]


def _probabilities(config: Config, logits: Tensor) -> Tensor:
    """Probabilities [B, N, V], 0 for tokens that may not be drawn; not normalised."""
    logits = logits / config.temperature
    if config.top_k:
        few, ids = top_k(logits, min(config.top_k, logits.shape[-1]))  # [B, N, K]
        logits = logits.new_full(logits.shape, NEG_INF).scatter(-1, ids, few)
    chances = logits.softmax(dim=-1).nan_to_num(0.0)  # 0 in a row of -inf
    if config.top_p < 1:
        ordered = chances.sort(dim=-1, descending=True, stable=True)
        before = ordered.values.cumsum(dim=-1) - ordered.values
        kept = ordered.values.masked_fill(before >= config.top_p, 0)
        chances = chances.new_zeros(chances.shape).scatter(-1, ordered.indices, kept)
        chances = chances / chances.sum(dim=-1, keepdim=True).clamp(min=1e-30)
    if config.epsilon:
        floor = chances.amax(dim=-1, keepdim=True).clamp(max=config.epsilon)
        chances = chances.masked_fill(chances < floor, 0)
    return chances
