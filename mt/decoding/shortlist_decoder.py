"""A decoder of a model restricted to a shortlist of its vocabulary (Jean et al. 2015).

Legend: B sentences, N beams, D width, V vocabulary, V' ids on the shortlist.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mt.decoding.decoders import DecoderState, ModelDecoder
from mt.interfaces import Seq2Seq
from mt.special_tokens import PAD


class OutOfShortlistMass:
    """Estimates the softmax mass of the ids that a shortlist leaves out, without their logits.

    Without it a search would favour prefixes where the model is unsure, for there most mass is
    left out. Over many ids the logits of a hidden state h are about normal, with mean m h and
    variance h'Ch for the mean m and the covariance C of the projection's rows. Their exponentials
    are log-normal, so the log of the sum of n of them is about log n + m h + h'Ch / 2.

    Args:
        ids: [R] the ids that may be left out, from which m and C are computed.
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
            variance: Tensor = ((h @ self.covariance) * h).sum(dim=-1)
            return math.log(count) + h @ self.mean + variance / 2


class ShortlistDecoder(ModelDecoder):
    """A decoder whose tokens are places among the `ids` [V'], ascending, of a shortlist.

    The mass of all others, `rest`, is added to the logit of padding, which no search takes.
    """

    def __init__(
        self, model: Seq2Seq, ids: Tensor, rest: OutOfShortlistMass,
        packed: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        weight, bias = model.output()
        self.rows = weight[ids], None if bias is None else bias[ids]
        self.ids, self.rest = ids, rest
        super().__init__(model, packed)

    def output(self) -> tuple[Tensor, Tensor | None]:
        """The rows [V', D] of the ids, and their bias [V'] or None."""
        return self.rows

    def step(self, state: DecoderState, tokens: Tensor) -> Tensor:
        """Logits [B, N, V'] after feeding tokens [B, N]."""
        logits = super().step(state, self.ids[tokens])
        left_out = self.rest.size - len(self.ids)
        if left_out:
            assert state.hidden is not None, "there was a step"
            rest = self.rest(state.hidden, left_out)  # [B, n]
            padding = logits[:, : rest.size(1), PAD]  # of one beam while all are equal
            padding.copy_(padding.float().logaddexp(rest))
        return logits

    def align(self, source: Tensor, tokens: Tensor) -> Tensor:
        """Attention [B, N, T, S] over the source; see `ModelDecoder`."""
        return super().align(source, self.ids[tokens])
