"""chrF2++ is sacreBLEU's chrF2 with two words."""

from __future__ import annotations

import sacrebleu

from mt.evaluation.metrics.chrfpp import Config, build

TEXTS = ["A cat sat there."], [["A cat sits there."]]


def test_it_is_sacrebleus_with_two_words():
    found = build(Config(), "de").score((), *TEXTS)
    assert found.score == sacrebleu.corpus_chrf(*TEXTS, word_order=2).score
    assert found.score != sacrebleu.corpus_chrf(*TEXTS).score
    assert "nw:2" in found.signature
