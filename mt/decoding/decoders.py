"""What a search sees of models: one, several together, or one whose words are restricted.

Legend: B sentences, N beams, S source length, T target length, D width, V vocabulary.
"""

from __future__ import annotations

import math
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
from mt.special_tokens import BEGIN, PAD


@dataclass
class _State:
    memory: Memory
    cache: Cache
    hidden: Tensor | None = None
    """[B, n, D] the last hidden states."""


class ModelDecoder:
    """What a search sees of one model; see `mt.contracts.Decoder`.

    Args:
        model: the model; its own linear layers may be packed (`mt.linear.pack`).
        packed: the type to pack its projection to the vocabulary in; None: not at all.
    """

    def __init__(self, model: Seq2Seq, packed: torch.dtype | None = None) -> None:
        self.model = model
        self.project = None if packed is None else PrepackedWeight(*self.output(), packed)

    def output(self) -> tuple[Tensor, Tensor | None]:
        """The projection weight [V, D] and bias [V], or None."""
        return self.model.output()

    def start(self, source: Tensor, beams: int, max_lengths: Tensor) -> _State:
        """Encode source ids [B, S] and make room for the longest hypothesis."""
        memory = self.model.encode(source)
        return _State(memory, self.model.start(memory, beams, int(max_lengths.max())))

    def step(self, state: _State, tokens: Tensor) -> Tensor:
        """Logits [B, N, V] after feeding tokens [B, N]."""
        # At first all beams are alike: one of each sentence stands for all, where a cache can.
        fed = tokens[:, :1] if getattr(state.cache, "fresh", False) else tokens
        hidden = self.model.decode(fed.reshape(-1, 1), state.memory, state.cache)[:, 0]
        state.hidden = hidden.view(*fed.shape, -1)  # [B, n, D]
        return self.logits(state.hidden).expand(*tokens.shape, -1)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., V] of hidden states [..., D]."""
        if self.project is None:
            return F.linear(hidden, *self.output())
        return self.project(hidden)

    def sharpen(self, state: _State, ids: Tensor, logits: Tensor) -> Tensor:
        """The logits [B, N, K] of a few tokens in fp32, where those of all were in fewer bits."""
        if self.project is None or self.project.dtype == torch.float32:
            return logits
        assert state.hidden is not None, "there was a step"
        weight, bias = self.output()
        exact = (F.embedding(ids, weight) @ state.hidden[..., None].float())[..., 0]  # [B, N, K]
        return exact if bias is None else exact + bias[ids]

    def reorder(self, state: _State, beams: Tensor) -> None:
        """Beam n of sentence b continues what beam `beams[b, n]` was; beams [B, N]."""
        first = torch.arange(len(beams), device=beams.device) * beams.shape[1]  # [B]
        state.cache.reorder((beams + first[:, None]).flatten())  # [B*N]

    def keep(self, state: _State, sentences: Tensor) -> None:
        """Keep only these sentences [B']."""
        state.memory = Memory(state.memory.states[sentences], state.memory.valid[sentences])
        state.cache.keep(sentences)

    def align(self, source: Tensor, tokens: Tensor) -> Tensor:
        """Attention [B, N, T, S] over the source; the mean of the heads of one layer."""
        begin = torch.full_like(tokens[..., :1], BEGIN)
        inputs = torch.cat((begin, tokens[..., :-1]), dim=-1)  # [B, N, T]
        rows = source.repeat_interleave(inputs.size(1), dim=0)  # [B*N, S]
        if not hasattr(self.model, "attention"):
            raise without_attention(self.model)
        attention = self.model.attention(rows, inputs.flatten(0, 1))  # [B*N, T, S]
        return attention.unflatten(0, inputs.shape[:2])


def without_attention(model: Seq2Seq) -> ConfigError:
    """The refusal of a model that tells nothing of its attention."""
    what = f"{type(model).__name__} tells of no attention"
    return ConfigError("ATTENTION", "the model", what, "choose a model that does, or do without")


class OutOfShortlistMass:
    """How much the ids that a shortlist leaves out weigh, without computing their logits.

    Without them in the softmax a search would favour what the model is unsure of, where most is
    left out. Over many ids the logits of a hidden state h are about normally distributed, their
    mean m h and their variance h'Ch for the mean m and the covariance C of the projection's rows;
    so n of them have together log n + m h + h'Ch / 2.

    Args:
        model: whose projection it is.
        ids: [R] the ids that may be left out, from which m and C are taken.
    """

    def __init__(self, model: Seq2Seq, ids: Tensor) -> None:
        weight, bias = model.output()
        rows = weight.detach()[ids].float()
        if bias is not None:  # h gets a 1 for it
            rows = torch.cat((rows, bias.detach()[ids, None].float()), dim=1)
        self.size = len(weight)
        self.mean = rows.mean(dim=0)  # [D]
        self.covariance = (rows - self.mean).T @ (rows - self.mean) / max(1, len(rows))  # [D, D]

    def __call__(self, hidden: Tensor, count: int) -> Tensor:
        """The log of the sum of exp of `count` logits, [...] for hidden states [..., D]."""
        with torch.autocast(hidden.device.type, enabled=False):
            h = hidden.float()
            h = F.pad(h, (0, len(self.mean) - h.size(-1)), value=1.0)
            spread: Tensor = ((h @ self.covariance) * h).sum(dim=-1)
            return math.log(count) + h @ self.mean + spread / 2


class ShortlistDecoder(ModelDecoder):
    """One model of whose vocabulary only some ids are searched: tokens are places among them.

    What all the others weigh is added to the logit of padding, which no search takes.

    Args:
        model: the model.
        ids: [V'] the target ids, ascending.
        rest: estimates what is left out.
        packed: as of `ModelDecoder`.
    """

    def __init__(
        self,
        model: Seq2Seq,
        ids: Tensor,
        rest: OutOfShortlistMass,
        packed: torch.dtype | None = None,
    ) -> None:
        weight, bias = model.output()
        self.listed = weight[ids], None if bias is None else bias[ids]
        self.ids, self.rest = ids, rest
        super().__init__(model, packed)

    def output(self) -> tuple[Tensor, Tensor | None]:
        """The rows [V', D] of the ids, and their bias [V'] or None."""
        return self.listed

    def step(self, state: _State, tokens: Tensor) -> Tensor:
        """Logits [B, N, V'] after feeding tokens [B, N]."""
        logits = super().step(state, self.ids[tokens])
        left_out = self.rest.size - len(self.ids)
        if left_out:
            assert state.hidden is not None, "there was a step"
            rest = self.rest(state.hidden, left_out)  # [B, n]
            padding = logits[:, : rest.size(1), PAD]  # where all beams are alike, that of one
            padding.copy_(padding.float().logaddexp(rest))
        return logits

    def align(self, source: Tensor, tokens: Tensor) -> Tensor:
        """See `ModelDecoder`."""
        return super().align(source, self.ids[tokens])


class EnsembleDecoder:
    """Several decoders of one vocabulary, whose log-probabilities are averaged.

    The average does not sum to one; a search makes probabilities of it as it does of logits.
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
            gains = member.step(own, tokens).float().log_softmax(dim=-1)
            total = gains if total is None else total.add_(gains)
        assert total is not None, "an ensemble has members"
        return total.div_(len(self.members))

    def reorder(self, state: list[Any], beams: Tensor) -> None:
        """See `mt.contracts.Decoder`."""
        for member, own in zip(self.members, state, strict=True):
            member.reorder(own, beams)

    def keep(self, state: list[Any], sentences: Tensor) -> None:
        """See `mt.contracts.Decoder`."""
        for member, own in zip(self.members, state, strict=True):
            member.keep(own, sentences)

    def sharpen(self, state: list[Any], ids: Tensor, logits: Tensor) -> Tensor:
        """See `mt.contracts.Decoder`."""
        return logits

    def align(self, source: Tensor, tokens: Tensor) -> Tensor:
        """The mean of the members' attention [B, N, T, S]."""
        aligned = [member.align(source, tokens) for member in self.members]
        return torch.stack(aligned).mean(dim=0)


def ensemble(members: Sequence[Decoder]) -> Decoder:
    """One decoder as it is, several as an ensemble."""
    return members[0] if len(members) == 1 else EnsembleDecoder(members)
