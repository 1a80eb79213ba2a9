"""Lines are cut as the Moses scripts cut them, and the signature says so."""

from __future__ import annotations

import sys

import pytest
import sacrebleu

from mt.config.schema import EvaluationConfig
from mt.errors import ConfigError
from mt.evaluation import scoring
from mt.evaluation.moses_tokenizer import MosesTokenizer

RAW = ['Ein Mann mit ergrauenden Haaren rasiert "seinen" Bart.', "Das T-Shirt, z. B., ist rot!"]
CUT = [
    "ein mann mit ergrauenden haaren rasiert &quot; seinen &quot; bart .",
    "das t-shirt , z. b. , ist rot !",
]
TOKENISED = EvaluationConfig(lowercase=True, tokenize="moses")


def test_lines_are_cut_as_tokenizer_perl_does():
    cut = MosesTokenizer("de")
    assert [cut(line.lower()) for line in RAW] == CUT


def test_the_score_is_that_of_text_that_was_tokenised_before():
    hypotheses = ["Ein Mann rasiert seinen Bart .", "das T-Shirt ist, z. B., rot!"]
    found = scoring.score_translations(hypotheses, [RAW], "de", TOKENISED)["BLEU"]
    cut = MosesTokenizer("de")
    lines = [cut(line.lower()) for line in hypotheses]
    plain = sacrebleu.corpus_bleu(lines, [CUT], tokenize="none", force=True)
    assert found["score"] == pytest.approx(plain.score, abs=0.01)
    assert "case:lc" in found["signature"]
    assert "tok:moses-de-sacremoses-" in found["signature"]


@pytest.mark.parametrize("language", ["de_DE", "deu", "deu_Latn"])
def test_any_form_of_a_language_code_will_do(language):
    metric = scoring.make_bleu("moses", True, language)
    assert "tok:moses-de-" in metric.score((), RAW, [RAW]).signature


def test_without_sacremoses_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(ConfigError, match=r"mt\[moses\]"):
        scoring.make_metrics("de", TOKENISED)
