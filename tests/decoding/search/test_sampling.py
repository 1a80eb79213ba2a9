"""Samples have their probability and depend on their seed only."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from table_decoder import (
    NONE,
    PIECES,
    Table,
    ask,
    make,
    models,
    request,
    texts,
)

from mt.special_tokens import BEGIN, END, FIRST_PIECE

# --------------------------------------------------------------------------- sampling


def sampled(table, asked, **settings):
    return texts(make("sampling", **settings)(table, asked))


@pytest.mark.parametrize("settings", models)
def test_one_token_left_is_greedy_search(settings):
    for seed in range(10):
        asked = replace(request(seed=seed, longest=9), seeds=[seed, 1, 2, 3])
        greedy = texts(make("greedy")(Table(seed, **settings), asked))
        ways = [{"top_k": 1}, {"top_p": 1e-6}, {"epsilon": 0.999}]
        ways += [] if settings["levels"] else [{"temperature": 1e-5}]  # which has no ties to break
        for few in ways:
            if "epsilon" in few or "top_p" in few:
                few = few if not settings["levels"] else {"top_k": 1}
            assert sampled(Table(seed, **settings), asked, **few) == greedy


def test_a_sample_does_not_depend_on_how_many_there_are():
    asked = replace(request(sentences=6, longest=9), seeds=range(6))
    few = sampled(Table(1), replace(asked, n_best=2))
    many = sampled(Table(1), replace(asked, n_best=20))
    for first, all_of_them in zip(few, many, strict=True):
        assert not Counter(first) - Counter(all_of_them)


def test_another_seed_gives_another_sample():
    asked = request(sentences=6, longest=9, n_best=5)
    found = [sampled(Table(1), replace(asked, seeds=[s] * 6)) for s in (1, 1, 2)]
    assert found[0] == found[1]
    assert found[0] != found[2]


def narrowed(chances, temperature=1.0, top_k=0, top_p=1.0, epsilon=0.0):
    """The distribution that is drawn from, in plain Python; chances: token to probability."""
    heat = {token: chance ** (1 / temperature) for token, chance in chances.items()}
    total = sum(heat.values())
    ordered = sorted(((c / total, t) for t, c in heat.items()), reverse=True)
    if top_k:
        ordered = ordered[:top_k]
        total = sum(c for c, _ in ordered)
        ordered = [(c / total, t) for c, t in ordered]
    kept, before = [], 0.0
    for chance, token in ordered:
        if before < top_p:
            kept.append((chance, token))
        before += chance
    total = sum(c for c, _ in kept)
    kept = [(c / total, t) for c, t in kept]
    kept = [(c, t) for c, t in kept if c >= epsilon] or kept[:1]
    total = sum(c for c, _ in kept)
    return {t: c / total for c, t in kept}


@pytest.mark.parametrize(
    "narrow",
    [
        {}, {"temperature": 0.5}, {"temperature": 2.0}, {"top_k": 2}, {"top_p": 0.7},
        {"epsilon": 0.2}, {"temperature": 1.5, "top_k": 3, "top_p": 0.9, "epsilon": 0.1},
    ],
    ids=str,
)  # fmt: skip
def test_samples_are_as_frequent_as_they_are_probable(narrow):
    class Short(Table):
        """Only the first token is a choice, so that few samples show its distribution."""

        def logits(self, source, prefix):
            row = super().logits((), prefix) / 2
            if len(prefix) > 1:
                row[FIRST_PIECE:] = NONE
            return row

    for seed in range(3):
        count, table = 4000, Short(seed)
        asked = ask(torch.ones(1, 1), torch.tensor([3]), n_best=count, seeds=[seed])
        found = Counter(tokens[0] for tokens in sampled(table, asked, **narrow)[0])
        row = table.logits((), (BEGIN,))
        raw = {token: math.exp(float(row[token])) for token in (END, *PIECES)}
        true = narrowed({t: c / sum(raw.values()) for t, c in raw.items()}, **narrow)
        assert set(found) == set(true)
        for token, chance in true.items():
            spread = math.sqrt(chance * (1 - chance) / count)
            assert abs(found[token] / count - chance) <= 4 * spread + 1e-9
