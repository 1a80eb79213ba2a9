"""chrF2 is sacreBLEU's."""

from __future__ import annotations

import sacrebleu

from mt.evaluation.metrics.chrf import Config, build

TEXTS = ["A cat sat."], [["a Cat sits."]]


def test_it_is_sacrebleus():
    assert build(Config(), "de").score((), *TEXTS).score == sacrebleu.corpus_chrf(*TEXTS).score


def test_case_counts_unless_the_recipe_says_otherwise():
    lower = build(Config(lowercase=True), "de").score((), *TEXTS)
    assert lower.score > build(Config(), "de").score((), *TEXTS).score
    assert "case:lc" in lower.signature
