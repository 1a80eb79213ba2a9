"""Beam search against brute force and a plain beam search."""

from __future__ import annotations

import importlib
import itertools
from collections import Counter
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from table_decoder import (
    NONE,
    PIECES,
    Table,
    beams,
    follows,
    make,
    models,
    request,
    rows_of,
    seeds,
    texts,
)

from mt.config.plugins import plugin
from mt.special_tokens import END


@pytest.fixture
def plain(monkeypatch):
    """The searches that are written as plainly as can be."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "scripts" / "bench"))
    return importlib.import_module("plain_search")


def penalised(total, length, penalty, norm):
    return total / (length if norm == "power" else (5 + length) / 6) ** penalty


CASES = list(
    itertools.product(
        (0.0, 0.6, 1.0), ("power", "gnmt"), ({}, {"patience": 3.0}, {"stop": "bound"})
    )
)


def brute_force(table, source, longest):
    """Every sequence that ends within `longest` tokens and has a probability, with its score."""
    for length in range(longest):
        for pieces in itertools.product(PIECES, repeat=length):
            gains = table.score(source, [*pieces, END])
            if sum(gains) > NONE:
                yield sum(gains), (*pieces, END)


@beams
@pytest.mark.parametrize("rule", [{}, {"patience": 3.0}, {"stop": "bound"}], ids=str)
@pytest.mark.parametrize("norm", ["power", "gnmt"])
@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
@seeds(1, 2)
def test_a_wide_beam_finds_what_brute_force_finds(kind, penalty, norm, rule, numbers):
    wide = make(kind, beams=40, length_penalty=penalty, length_norm=norm, **rule)
    for seed, settings in itertools.product(numbers, models):  # 216 models in all
        seed += 2 * CASES.index((penalty, norm, rule))
        table, asked = Table(seed, **settings), request(seed=seed, longest=4, n_best=40)
        found = wide(table, asked)
        for row, hypotheses in enumerate(texts(found)):
            source, longest = asked.source[row].tolist(), int(asked.max_lengths[row])
            true = {
                tokens: penalised(total, len(tokens), penalty, norm)
                for total, tokens in brute_force(table, source, longest)
            }
            assert set(hypotheses) == set(true)
            assert found.scores[row, : len(true)].tolist() == pytest.approx(
                sorted(true.values(), reverse=True), abs=1e-4
            )
            for tokens, score in zip(hypotheses, found.scores[row].tolist(), strict=False):
                assert score == pytest.approx(true[tokens], abs=1e-4)


@beams
@pytest.mark.parametrize("patience", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("width", [1, 2, 3, 6])
def test_a_beam_finds_what_a_plain_search_finds(plain, kind, width, patience):
    if "patience" not in plugin("search", kind).Config.model_fields:
        patience = 1.0
    for seed, settings in itertools.product(range(3), models):
        table, asked = Table(seed, **settings), request(seed=seed, longest=9, n_best=width)
        found = make(kind, beams=width, patience=patience, length_penalty=0.6)(table, asked)
        for row, source, longest in rows_of(asked):
            enough = max(1, round(width * patience))
            true = plain.beam(
                follows(table, source), width, longest, lambda length: length**0.6, enough
            )[:width]
            scores = [score for score in found.scores[row].tolist() if score > NONE]
            assert scores == pytest.approx([score for score, _ in true], abs=1e-4)
            if len({round(score, 3) for score, _ in true}) == len(true):  # no ties
                assert texts(found)[row] == [tokens for _, tokens in true]


@pytest.mark.parametrize("norm", ["power", "gnmt"])
@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
@seeds(2, 6)
def test_stopping_at_the_bound_loses_nothing_and_saves_steps(penalty, norm, numbers):
    steps = Counter()
    for seed, settings, width in itertools.product(numbers, models[:4], (2, 5)):
        asked = request(seed=seed, longest=14, n_best=width)
        ways = {"bound": {"stop": "bound"}, "never": {"patience": 1000.0}, "finished": {}}
        found = {}
        for name, rule in ways.items():
            table = Table(seed, **settings)
            search = make("beam", beams=width, length_penalty=penalty, length_norm=norm, **rule)
            found[name] = search(table, asked)
            steps[name] += sum(table.steps)
        assert texts(found["bound"]) == texts(found["never"])
        assert torch.equal(found["bound"].scores, found["never"].scores)
        assert (found["bound"].scores >= found["finished"].scores).all()
    assert steps["finished"] < steps["never"]
    assert steps["bound"] < steps["never"] or penalty > 1  # when length can make up for much


def test_patience_with_the_bound_is_refused():
    with pytest.raises(ValidationError, match="patience"):
        make("beam", stop="bound", patience=2.0)
