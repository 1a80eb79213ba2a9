"""TER is sacreBLEU's; less is better."""

from __future__ import annotations

import sacrebleu

from mt.evaluation.metrics.ter import Config, build

TEXTS = ["A cat sat there."], [["A cat sits there."]]


def test_it_is_sacrebleus():
    assert build(Config(), "de").score((), *TEXTS).score == sacrebleu.corpus_ter(*TEXTS).score


def test_less_is_better():
    assert not Config().higher_is_better
    assert build(Config(), "de").score((), TEXTS[1][0], TEXTS[1]).score == 0


def test_text_without_spaces_is_split_into_words():
    texts = ["我喜欢猫"], [["我喜欢狗"]]
    assert build(Config(), "de").score((), *texts).score == 100
    assert 0 < build(Config(), "zh").score((), *texts).score < 100
