"""Next-token decoders: one model, or an ensemble.

Legend: B sentences, N beams, S source length, T target length, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mt.decoding.types import Decoder
from mt.errors import ConfigError
from mt.interfaces import Cache, Memory, Seq2Seq
from mt.models.modules.linear import PrepackedWeight
from mt.special_tokens import BEGIN


@dataclass
class DecoderState:
    """The state of one batch."""

    memory: Memory
    cache: Cache
    hidden: Tensor | None = None
    """[B, n, D] the last hidden states."""


class ModelDecoder:
    """A `Decoder` of one model, whose linear layers may be packed (`modules.linear.pack`).

    Args:
        packed: the type in which to pack the projection to the vocabulary; None: do not pack.
    """

    def __init__(self, model: Seq2Seq, packed: torch.dtype | None = None) -> None:
        self.model = model
        self.project = None if packed is None else PrepackedWeight(*self.output(), packed)

    def output(self) -> tuple[Tensor, Tensor | None]:
        """The projection weight [V, D] and bias [V], or None."""
        return self.model.output()

    def start(self, source: Tensor, beams: int, max_lengths: Tensor) -> DecoderState:
        """Encode source ids [B, S] and allocate the cache."""
        memory = self.model.encode(source)
        return DecoderState(memory, self.model.start(memory, beams, int(max_lengths.max())))

    def step(self, state: DecoderState, tokens: Tensor) -> Tensor:
        """Logits [B, N, V] after feeding tokens [B, N]."""
        # At the start all beams of a sentence are equal: a cache that can computes one of them.
        fed = tokens[:, :1] if getattr(state.cache, "fresh", False) else tokens
        hidden = self.model.decode(fed.reshape(-1, 1), state.memory, state.cache)[:, 0]
        state.hidden = hidden.view(*fed.shape, -1)  # [B, n, D]
        return self.logits(state.hidden).expand(*tokens.shape, -1)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., V] of hidden states [..., D]."""
        if self.project is None:
            return F.linear(hidden, *self.output())
        return self.project(hidden)

    def recompute_in_fp32(self, state: DecoderState, ids: Tensor, logits: Tensor) -> Tensor:
        """The logits [B, N, K] of the tokens `ids` in fp32; `logits` where they already are."""
        if self.project is None or self.project.dtype == torch.float32:
            return logits
        assert state.hidden is not None, "there was a step"
        weight, bias = self.output()
        exact = (F.embedding(ids, weight) @ state.hidden[..., None].float())[..., 0]  # [B, N, K]
        return exact if bias is None else exact + bias[ids]

    def reorder(self, state: DecoderState, beams: Tensor) -> None:
        """Beam n of sentence b continues what beam `beams[b, n]` was; beams [B, N]."""
        first = torch.arange(len(beams), device=beams.device) * beams.shape[1]  # [B]
        state.cache.reorder((beams + first[:, None]).flatten())  # [B*N]

    def select_sentences(self, state: DecoderState, sentences: Tensor) -> None:
        """Keep only these sentences [B']."""
        state.memory = Memory(state.memory.states[sentences], state.memory.valid[sentences])
        state.cache.select_sentences(sentences)

    def align(self, source: Tensor, tokens: Tensor) -> Tensor:
        """Attention [B, N, T, S] over the source; the mean of the heads of one layer."""
        begin = torch.full_like(tokens[..., :1], BEGIN)
        inputs = torch.cat((begin, tokens[..., :-1]), dim=-1)  # [B, N, T]
        rows = source.repeat_interleave(inputs.size(1), dim=0)  # [B*N, S]
        require_attention(self.model, "attention")
        attention = self.model.attention(rows, inputs.flatten(0, 1))  # [B*N, T, S]
        return attention.unflatten(0, inputs.shape[:2])


def require_attention(model: Seq2Seq, method: str) -> None:
    """Check that a model has a method that returns its attention.

    Raises:
        ConfigError: it has none.
    """
    if not hasattr(model, method):
        what = f"{type(model).__name__} tells of no attention"
        advice = "choose a model that does, or do without"
        raise ConfigError("ATTENTION", "the model", what, advice)


class EnsembleDecoder:
    """Several decoders of one vocabulary, whose log-probabilities are averaged.

    The average does not sum to one; a search normalises it as it does logits.
    """

    def __init__(self, members: Sequence[Decoder]) -> None:
        self.members = members

    def start(self, source: Tensor, beams: int, max_lengths: Tensor) -> list[Any]:
        """The state of each member."""
        return [member.start(source, beams, max_lengths) for member in self.members]

    def step(self, state: list[Any], tokens: Tensor) -> Tensor:
        """The mean over the members of log-probabilities [B, N, V]."""
        total: Tensor | None = None
        for member, own in zip(self.members, state, strict=True):
            log_probs = member.step(own, tokens).float().log_softmax(dim=-1)
            total = log_probs if total is None else total.add_(log_probs)
        assert total is not None, "an ensemble has members"
        return total.div_(len(self.members))

    def reorder(self, state: list[Any], beams: Tensor) -> None:
        """Reorder the beams of each member."""
        for member, own in zip(self.members, state, strict=True):
            member.reorder(own, beams)

    def select_sentences(self, state: list[Any], sentences: Tensor) -> None:
        """Keep only these sentences [B'] in each member."""
        for member, own in zip(self.members, state, strict=True):
            member.select_sentences(own, sentences)

    def recompute_in_fp32(self, state: list[Any], ids: Tensor, logits: Tensor) -> Tensor:
        """The logits as they are: `step` returns fp32."""
        return logits

    def align(self, source: Tensor, tokens: Tensor) -> Tensor:
        """The mean of the members' attention [B, N, T, S]."""
        return torch.stack([member.align(source, tokens) for member in self.members]).mean(dim=0)


def ensemble(members: Sequence[Decoder]) -> Decoder:
    """An ensemble of several decoders; one decoder as it is."""
    return members[0] if len(members) == 1 else EnsembleDecoder(members)
