"""Greedy and beam search, written as plainly as possible: the reference for the fast ones.

One sentence at a time, every prefix decoded again with no cache, a full log-softmax in fp32, sums
in Python. Of equal candidates the lower beam, then the lower id, goes first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from mt.interfaces import Memory, Seq2Seq
from mt.special_tokens import BEGIN, END, FIRST_PIECE

Tokens = tuple[int, ...]
NextToken = Callable[[list[Tokens]], torch.Tensor]
"""Log-probabilities [N, V] of the next token after prefixes of one length."""


def next_token(model: Seq2Seq, source: Sequence[int]) -> NextToken:
    """Return the next-token function for translations of source ids that end in `</s>`."""
    memory = model.encode(torch.tensor([source]))

    def follow(prefixes: list[Tokens]) -> torch.Tensor:
        count = len(prefixes)
        shared = Memory(memory.states.expand(count, -1, -1), memory.valid.expand(count, -1))
        hidden = model.decode(torch.tensor([[BEGIN, *p] for p in prefixes]), shared)[:, -1]
        return F.linear(hidden, *model.output()).float().log_softmax(dim=-1).detach()

    return follow


def beam(
    follow: NextToken, beams: int, longest: int,
    divisor: Callable[[int], float] = float, enough: int | None = None,
) -> list[tuple[float, Tokens]]:  # fmt: skip
    """Return the finished hypotheses, best first: (log-probability / divisor(length), tokens)."""
    live, ended = list[tuple[float, Tokens]]([(0.0, ())]), list[tuple[float, Tokens]]()
    for length in range(1, longest + 1):
        grown = []
        for place, gains in enumerate(follow([prefix for _, prefix in live])):
            allowed = [END] if length == longest else [END, *range(FIRST_PIECE, len(gains))]
            best = gains[allowed].sort(descending=True, stable=True).indices[: 2 * beams]
            for token in (allowed[i] for i in best.tolist()):
                if (total := live[place][0] + float(gains[token])) > float("-inf"):
                    grown.append((-total, place, token))
        for total, place, token in sorted(grown)[:beams]:
            if token == END:
                ended.append((-total / divisor(length), (*live[place][1], END)))
        going = [each for each in sorted(grown) if each[2] != END][:beams]
        live = [(-total, (*live[place][1], token)) for total, place, token in going]
        if not live or len(ended) >= (enough or beams):
            break
    return sorted(ended, key=lambda each: -each[0])


def greedy(follow: NextToken, longest: int) -> list[tuple[float, Tokens]]:
    """Return the one hypothesis and its log-probability."""
    return beam(follow, 1, longest, lambda length: 1.0)
