"""Scores of beams: the penalty of coverage."""

from __future__ import annotations

import math

import pytest
import torch
from table_decoder import (
    Table,
    make,
    models,
    request,
    rows_of,
    texts,
)

from mt.config.plugins import plugin, plugins
from mt.special_tokens import PAD

# --------------------------------------------------------------------------- coverage

covers = pytest.mark.parametrize(
    "kind",
    [k for k in plugins("search") if "coverage_penalty" in plugin("search", k).Config.model_fields],
)


@covers
@pytest.mark.parametrize("settings", models)
def test_coverage_is_the_formula_of_the_paper(kind, settings):
    """Padding of the source has no part in it, and it is added after the length penalty."""
    for seed in range(4):
        table, asked = Table(seed, **settings), request(seed=seed, longest=4, n_best=40)
        asked.source[::2, 2] = PAD
        plainly = make(kind, beams=40, length_penalty=0.6)(table, asked)
        found = make(kind, beams=40, length_penalty=0.6, coverage_penalty=0.7)(table, asked)
        for row, source, _ in rows_of(asked):
            before = dict(zip(texts(plainly)[row], plainly.scores[row].tolist(), strict=False))
            after = dict(zip(texts(found)[row], found.scores[row].tolist(), strict=False))
            assert set(before) == set(after)
            for tokens, score in after.items():
                attention = table.align(torch.tensor([source]), torch.tensor([[tokens]]))[0, 0]
                expected = before[tokens]
                for position, token in enumerate(source):
                    if token != PAD:
                        covered = sum(float(step[position]) for step in attention)
                        expected += 0.7 * math.log(min(covered, 1.0))
                assert score == pytest.approx(expected, abs=1e-4)


@covers
def test_what_is_never_looked_at_costs_something_finite(kind):
    class Blind(Table):
        def align(self, source, tokens):
            return super().align(source, tokens) * 0

    found = make(kind, beams=4, coverage_penalty=0.2)(Blind(1), request(longest=6))
    assert found.scores.isfinite().all()
