"""BLEU is sacreBLEU's, with the tokenizer and the case that the recipe chooses."""

from __future__ import annotations

import sacrebleu

from mt.evaluation.metrics.bleu import Config, build

TEXTS = ["The cat sat on a mat, softly."], [["The cat sat on the mat, Softly."]]


def test_it_is_sacrebleus():
    for config, settings in (
        (Config(), {}),
        (Config(tokenize="char"), {"tokenize": "char"}),
        (Config(lowercase=True), {"lowercase": True}),
    ):
        expected = sacrebleu.corpus_bleu(*TEXTS, **settings)
        assert build(config, "de").score((), *TEXTS).score == expected.score


def test_the_language_chooses_the_tokenizer_unless_one_is_given():
    assert "tok:zh" in build(Config(), "zh").score((), *TEXTS).signature
    assert "tok:13a" in build(Config(tokenize="13a"), "zh").score((), *TEXTS).signature


def test_it_is_undefined_without_four_tokens():
    assert build(Config(), "de").score((), ["a b c"], [["a b c"]]).undefined
    assert build(Config(), "de").score((), ["a b c d"], [["a b c d"]]).undefined is None
