"""A decoder of random numbers, small enough to try everything."""

from __future__ import annotations

import functools
import itertools
import math
from functools import partial

import pytest
import torch

from mt.config.plugins import plugin, plugins
from mt.decoding.types import Request
from mt.special_tokens import BEGIN, END, FIRST_PIECE, PAD

NONE = float("-inf")

PIECES = [FIRST_PIECE, FIRST_PIECE + 1, FIRST_PIECE + 2]

SIZE = FIRST_PIECE + len(PIECES)


def seeds(few, many):
    """A parameter `numbers`: the first seeds in the everyday run, the rest in the slow one."""
    rest = pytest.param(range(few, many), marks=pytest.mark.slow)
    return pytest.mark.parametrize("numbers", [range(few), rest], ids=str)


@functools.lru_cache(maxsize=1 << 15)
def random_row(seed, holes, levels, size, source, prefix):
    """Logits that are fixed by the arguments; a caller that changes them changes a copy."""
    generator = torch.Generator().manual_seed(hash((seed, source, prefix)) % 2**31)
    row = torch.randn(size, generator=generator) * 2
    row[:FIRST_PIECE] += 1  # what must never be generated is likely
    if levels:
        row = (row * levels).round() / levels
    row[torch.rand(size, generator=generator) < holes] = NONE
    return row


class Table:
    """A decoder whose next-token logits are random numbers fixed by the source and the prefix.

    It keeps a prefix a beam, as a cache does, so a search that forgets to reorder or to keep
    is found out. `holes` is the share of -inf logits; `levels` rounds, which makes ties.
    """

    def __init__(self, seed: int, holes: float = 0.0, levels: int = 0, size: int = SIZE) -> None:
        self.seed, self.holes, self.levels, self.size = seed, holes, levels, size
        self.steps: list[int] = []

    def logits(self, source: tuple[int, ...], prefix: tuple[int, ...]) -> torch.Tensor:
        settings = self.seed, self.holes, self.levels, self.size
        return random_row(*settings, source, prefix).clone()

    def start(self, source, beams, max_lengths):
        return {"sources": source.tolist(), "prefixes": [[()] * beams for _ in source]}

    def step(self, state, tokens):
        assert tokens.shape == (len(state["sources"]), len(state["prefixes"][0]))
        self.steps.append(len(state["sources"]))
        rows = []
        for source, prefixes, news in zip(
            state["sources"], state["prefixes"], tokens.tolist(), strict=True
        ):
            prefixes[:] = [(*old, new) for old, new in zip(prefixes, news, strict=True)]
            rows.append(torch.stack([self.logits(tuple(source), p) for p in prefixes]))
        return torch.stack(rows)

    def reorder(self, state, beams):
        assert not torch.equal(beams, torch.arange(beams.shape[1]).expand_as(beams))
        state["prefixes"] = [
            [old[i] for i in row]
            for old, row in zip(state["prefixes"], beams.tolist(), strict=True)
        ]

    def select_sentences(self, state, sentences):
        for name in ("sources", "prefixes"):
            state[name] = [state[name][i] for i in sentences.tolist()]

    def attention(self, source, prefix):
        """What the step after `prefix` attends to, over the source."""
        generator = torch.Generator().manual_seed(hash((self.seed, source, prefix)) % 2**31)
        return torch.rand(len(source), generator=generator).pow(3).add(1e-3)

    def align(self, source, tokens):
        return torch.stack([
            torch.stack([
                torch.stack([self.attention(tuple(s), tuple(h[:t])) for t in range(len(h))])
                for h in many
            ])
            for s, many in zip(source.tolist(), tokens.tolist(), strict=True)
        ]).softmax(dim=-1)  # fmt: skip

    def score(self, source, tokens):
        """The log-probability of each token, one at a time, in plain arithmetic."""
        found = []
        for i, token in enumerate(tokens):
            row = self.logits(tuple(source), (BEGIN, *tokens[:i])).tolist()
            total = math.log(sum(math.exp(x) for x in row)) if max(row) > NONE else 0.0
            found.append(row[token] - total)
        return found


def make(kind, **settings):
    """A search with those of the settings that it has; diverse beams in one group, if not told."""
    module = plugin("search", kind)
    known = module.Config.model_fields
    settings = {"groups": 1, "samples": 8, **settings}
    return module.build(module.Config(**{k: v for k, v in settings.items() if k in known}))


def spell(ids):
    """Tokens as text: each piece is two letters, some of them shared."""
    return ["".join(("ab", "bc ", "cab")[t % 3] for t in each if t != END) for each in ids]


ask = partial(Request, texts=spell)


def request(sentences=4, longest=5, seed=0, **more):
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(FIRST_PIECE, SIZE, (sentences, 3), generator=generator)
    lengths = torch.randint(1, longest + 1, (sentences,), generator=generator)
    return ask(source=source, max_lengths=lengths, **more)


def texts(hypotheses):
    """The hypotheses of each sentence as tuples of tokens without padding, those that exist."""
    return [
        [tuple(t for t in tokens if t != PAD) for tokens, score in zip(many, scores, strict=True)
         if score != NONE]
        for many, scores in zip(
            hypotheses.tokens.tolist(), hypotheses.scores.tolist(), strict=True
        )
    ]  # fmt: skip


beams = pytest.mark.parametrize(
    "kind", [k for k in plugins("search") if "beams" in plugin("search", k).Config.model_fields]
)

models = [
    {"holes": holes, "levels": levels} for holes, levels in itertools.product((0, 0.3, 0.8), (0, 1))
]


def rows_of(asked):
    """Each sentence of a request: its row, its source and its greatest length."""
    return zip(itertools.count(), asked.source.tolist(), asked.max_lengths.tolist(), strict=False)


def follows(table, source):
    """The plain search's view of a table."""

    def follow(prefixes):
        rows = torch.stack([table.logits(tuple(source), (BEGIN, *p)) for p in prefixes])
        gains = rows.double().log_softmax(dim=-1)
        return gains.masked_fill(gains.isnan(), NONE)  # nothing can follow

    return follow
