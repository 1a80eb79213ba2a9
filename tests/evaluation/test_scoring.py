"""Scores, options and signatures are those of sacreBLEU."""

from __future__ import annotations

import json
import math
import sys

import pytest
import sacrebleu

from mt.config.schema import EvaluationConfig
from mt.errors import ConfigError, DataError, DownloadError
from mt.evaluation import scoring

HYPOTHESES = ["The cat sat on the mat.", "A Dog barks , loudly", "Nothing alike here"]

REFERENCES = ["The cat sat on the mat.", "A dog barks loudly.", "Quite another text"]

OTHERS = ["A cat was on the mat.", "A dog, loudly, barks.", "Nothing here alike"]

PLAIN = EvaluationConfig()


def test_scores_are_those_of_sacrebleu():
    found = scoring.score_translations(HYPOTHESES, [REFERENCES], "de", PLAIN)
    bleu = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES])
    assert found["BLEU"]["score"] == pytest.approx(bleu.score, abs=0.01)
    chrf = sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES])
    assert found["chrF2"]["score"] == pytest.approx(chrf.score, abs=0.01)
    ter = sacrebleu.corpus_ter(HYPOTHESES, [REFERENCES])
    assert found["TER"]["score"] == pytest.approx(ter.score, abs=0.01)
    assert found["BLEU"]["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|")
    assert list(found) == ["BLEU", "chrF2", "TER"]
    assert scoring.score_translations(REFERENCES, [REFERENCES], "de", PLAIN)["BLEU"]["score"] == 100
    json.dumps(found)


def test_several_references_are_no_worse_and_reported():
    one = scoring.score_translations(HYPOTHESES, [REFERENCES], "de", PLAIN)
    two = scoring.score_translations(HYPOTHESES, [REFERENCES, OTHERS], "de", PLAIN)
    assert two["BLEU"]["score"] > one["BLEU"]["score"]
    assert two["TER"]["score"] < one["TER"]["score"]
    assert all("nrefs:2" in metric["signature"] for metric in two.values())


def test_lower_case_is_an_option_and_reported():
    lower = scoring.score_translations(
        HYPOTHESES, [REFERENCES], "de", EvaluationConfig(lowercase=True)
    )
    mixed = scoring.score_translations(HYPOTHESES, [REFERENCES], "de", PLAIN)
    assert lower["BLEU"]["score"] > mixed["BLEU"]["score"]
    assert "case:lc" in lower["BLEU"]["signature"]
    assert "case:lc" in lower["chrF2"]["signature"]


@pytest.mark.parametrize(
    ("language", "setting", "expected"),
    [
        ("de", "auto", "13a"), ("zh", "auto", "zh"), ("zh-Hans", "auto", "zh"),
        ("zh_TW", "auto", "zh"), ("ja", "auto", "ja-mecab"), ("ko", "auto", "ko-mecab"),
        ("zho", "auto", "zh"), ("zh", "char", "char"), ("de", "none", "none"), ("ja", "13a", "13a"),
        ("th", "auto", "char"), ("lo", "auto", "char"), ("km", "auto", "char"),
        ("my", "auto", "char"), ("mya_Mymr", "auto", "char"), ("bo", "auto", "char"),
        ("dzo", "auto", "char"), ("shn", "auto", "char"), ("xx-Thai", "auto", "char"),
        ("yue", "auto", "zh"), ("wuu", "auto", "zh"), ("nan-Latn", "auto", "13a"),
        ("jpn", "auto", "ja-mecab"), ("vi", "auto", "13a"), ("mn", "auto", "13a"),
    ],
)  # fmt: skip
def test_the_tokenizer_goes_by_the_target_language(language, setting, expected):
    assert scoring.pick_tokenizer(language, setting) == expected


def test_chinese_is_cut_into_characters_and_the_signature_says_so():
    found = scoring.score_translations(["我喜欢猫。"], [["我喜欢狗。"]], "zh", PLAIN)
    assert "tok:zh" in found["BLEU"]["signature"]
    assert 0 < found["TER"]["score"] < 100


@pytest.mark.parametrize(
    ("language", "module", "extra"),
    [("ja", "tokenizer_ja_mecab", "japanese"), ("ko", "tokenizer_ko_mecab", "korean")],
)
def test_a_tokenizer_that_is_not_installed_names_what_installs_it(
    language, module, extra, monkeypatch
):
    name = f"sacrebleu.tokenizers.{module}"
    __import__(name)
    monkeypatch.setattr(sys.modules[name], "MeCab", None)
    with pytest.raises(ConfigError) as error:
        scoring.score_translations(["a"], [["a"]], language, PLAIN)
    assert f"mt[{extra}]" in str(error.value)
    assert f"{language}-mecab is not installed" in str(error.value)


def test_a_tokenizer_that_cannot_be_fetched_is_reported(monkeypatch, tmp_path):
    import sacrebleu.tokenizers.tokenizer_spm as spm

    monkeypatch.setattr(spm, "SACREBLEU_DIR", str(tmp_path))
    models = {
        name: {**facts, "url": "http://127.0.0.1:9/x"} for name, facts in spm.SPM_MODELS.items()
    }
    monkeypatch.setattr(spm, "SPM_MODELS", models)
    with pytest.raises(DownloadError, match="flores200"):
        scoring.make_metrics("de", EvaluationConfig(tokenize="flores200"))


@pytest.mark.parametrize("hypotheses", [["", ""], ["rot Haus", "blau Tisch"], ["a b c", "d"]])
def test_bleu_without_four_tokens_is_undefined(hypotheses):
    references = ["rot Haus", "blau Tisch"]
    found = scoring.score_translations(hypotheses, [references], "de", PLAIN)
    assert found["BLEU"]["score"] == 0
    assert found["BLEU"]["undefined"] == "no translation has four tokens"
    assert "undefined" not in found["chrF2"]
    bleu, chrf = scoring.bleu_and_chrf(hypotheses, references, "de", PLAIN)
    assert math.isnan(bleu)
    assert chrf == pytest.approx(found["chrF2"]["score"], abs=0.01)


def test_bleu_without_a_match_is_defined_and_0():
    found = scoring.score_translations(["x x x x"], [["a b c d"]], "de", PLAIN)
    assert found["BLEU"] == {"score": 0.0, "signature": found["BLEU"]["signature"]}


def test_only_the_metrics_of_the_recipe_are_computed():
    chosen = EvaluationConfig(metrics=("chrf",))
    assert list(scoring.score_translations(HYPOTHESES, [REFERENCES], "de", chosen)) == ["chrF2"]
    assert scoring.bleu_and_chrf(HYPOTHESES, REFERENCES, "de", chosen)[0] > 0


def test_a_metric_may_have_settings_and_a_name_of_its_own():
    chosen = EvaluationConfig(metrics=("bleu", {"kind": "bleu", "name": "low", "lowercase": True}))
    found = scoring.score_translations(HYPOTHESES, [REFERENCES], "de", chosen)
    assert list(found) == ["BLEU", "low"]
    lower = EvaluationConfig(lowercase=True)
    assert found["low"] == scoring.score_translations(HYPOTHESES, [REFERENCES], "de", lower)["BLEU"]


def test_one_score_is_that_of_all():
    full = scoring.score_translations(HYPOTHESES, [REFERENCES], "de", PLAIN)
    for label, name in (("bleu", "BLEU"), ("chrf", "chrF2"), ("ter", "TER")):
        score = scoring.score_by(label, (), HYPOTHESES, REFERENCES, "de", PLAIN)
        assert score == pytest.approx(full[name]["score"], abs=0.01)


def test_counts_that_differ_are_reported():
    with pytest.raises(DataError, match="3 hypotheses, 2 references"):
        scoring.score_translations(HYPOTHESES, [REFERENCES, REFERENCES[:2]], "de", PLAIN)
    with pytest.raises(DataError, match="nothing to score"):
        scoring.score_translations([], [[]], "de", PLAIN)


def test_validation_gets_the_same_figures():
    full = scoring.score_translations(HYPOTHESES, [REFERENCES], "de", PLAIN)
    bleu, chrf = scoring.bleu_and_chrf(HYPOTHESES, REFERENCES, "de", PLAIN)
    assert bleu == pytest.approx(full["BLEU"]["score"], abs=0.01)
    assert chrf == pytest.approx(full["chrF2"]["score"], abs=0.01)


def test_the_chrf_of_a_line_counts_its_best_reference():
    one, other = ["Ein Haus."], ["Das alte Haus."]
    alone = scoring.sentence_chrf(["Ein Haus."], other)
    assert scoring.sentence_chrf(["Ein Haus."], other, one) == [100.0] > alone
