"""Minimum Bayes risk: chrF and the choice are those of sacreBLEU."""

from __future__ import annotations

import random
import sys
from dataclasses import replace

import pytest
from pydantic import ValidationError
from sacrebleu.metrics import CHRF
from table_decoder import (
    NONE,
    Table,
    make,
    models,
    request,
    spell,
    texts,
)

from mt.errors import ConfigError

# ---------------------------------------------------------------- minimum Bayes risk


def test_the_fast_chrf_is_that_of_sacrebleu():
    from fastchrf import pairwise_chrf

    draw, chrf = random.Random(1), CHRF()
    for _ in range(60):
        many = ["".join(draw.choices("ab äß日\u3000.", k=draw.randrange(14))) for _ in range(6)]
        for text, row in zip(many, pairwise_chrf([many], [many])[0], strict=True):
            expected = [chrf.sentence_score(text, [other]).score for other in many]
            assert row == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    "candidates", [{"kind": "sampling"}, {"kind": "beam", "beams": 8}], ids=lambda c: c["kind"]
)
@pytest.mark.parametrize("settings", models)
def test_the_least_risk_is_what_sacrebleu_says(settings, candidates):
    chrf = CHRF()
    for seed in range(4):
        table = Table(seed, **settings)
        asked = replace(request(seed=seed, longest=7, n_best=8), seeds=[seed] * 4)
        inner = {k: v for k, v in candidates.items() if k != "kind"}
        many = texts(make(candidates["kind"], **inner)(table, asked))
        found = make("mbr", candidates=candidates)(table, asked)
        for row, tokens in enumerate(many):
            said = spell(tokens)
            true = {
                text: sum(chrf.sentence_score(text, [other]).score for other in said) / len(said)
                for text in said
            }
            scores = [score for score in found.scores[row].tolist() if score > NONE]
            assert scores == pytest.approx(sorted(true.values(), reverse=True), abs=1e-2)
            for text, score in zip(spell(texts(found)[row]), scores, strict=True):
                assert true[text] == pytest.approx(score, abs=1e-2)


def test_minimum_risk_within_minimum_risk_is_refused():
    with pytest.raises(ValidationError, match="mbr does not fit here"):
        make("mbr", candidates={"kind": "mbr"})


def test_minimum_risk_without_its_library_or_texts_says_so(monkeypatch):
    asked = request(longest=6)
    with pytest.raises(ConfigError, match="only ids"):
        make("mbr")(Table(1), replace(asked, texts=None))
    monkeypatch.setitem(sys.modules, "fastchrf", None)
    with pytest.raises(ConfigError, match="needs the package fastchrf") as told:
        make("mbr")(Table(1), asked)
    assert "pip install" in told.value.advice
