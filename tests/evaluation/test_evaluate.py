"""BLEU, chrF and TER are sacreBLEU's, for the right language; hypotheses are kept; errors told."""

from __future__ import annotations

import json
import sys

import pytest
import sacrebleu
import tiny_run

from mt.config.schema import EvaluationConfig
from mt.decoding.translate import open_engine
from mt.decoding.types import EngineOptions
from mt.errors import ConfigError, DataError, DownloadError, ModelError
from mt.evaluation import evaluate, metrics

HYPOTHESES = ["The cat sat on the mat.", "A Dog barks , loudly", "Nothing alike here"]
REFERENCES = ["The cat sat on the mat.", "A dog barks loudly.", "Quite another text"]
OTHERS = ["A cat was on the mat.", "A dog, loudly, barks.", "Nothing here alike"]
PLAIN = EvaluationConfig()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run.make(tmp_path_factory.mktemp("evaluate"))


@pytest.fixture(scope="module")
def engine(run):
    return open_engine(run, EngineOptions(threads=1, precision="fp32"))


def test_scores_are_those_of_sacrebleu():
    found = metrics.score_translations(HYPOTHESES, [REFERENCES], "de", PLAIN)
    bleu = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES])
    assert found["BLEU"]["score"] == pytest.approx(bleu.score, abs=0.01)
    chrf = sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES])
    assert found["chrF2"]["score"] == pytest.approx(chrf.score, abs=0.01)
    ter = sacrebleu.corpus_ter(HYPOTHESES, [REFERENCES])
    assert found["TER"]["score"] == pytest.approx(ter.score, abs=0.01)
    assert found["BLEU"]["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|")
    assert list(found) == ["BLEU", "chrF2", "TER"]
    assert metrics.score_translations(REFERENCES, [REFERENCES], "de", PLAIN)["BLEU"]["score"] == 100
    json.dumps(found)


def test_several_references_are_no_worse_and_reported():
    one = metrics.score_translations(HYPOTHESES, [REFERENCES], "de", PLAIN)
    two = metrics.score_translations(HYPOTHESES, [REFERENCES, OTHERS], "de", PLAIN)
    assert two["BLEU"]["score"] > one["BLEU"]["score"]
    assert two["TER"]["score"] < one["TER"]["score"]
    assert all("nrefs:2" in metric["signature"] for metric in two.values())


def test_lower_case_is_an_option_and_reported():
    lower = metrics.score_translations(
        HYPOTHESES, [REFERENCES], "de", EvaluationConfig(lowercase=True)
    )
    mixed = metrics.score_translations(HYPOTHESES, [REFERENCES], "de", PLAIN)
    assert lower["BLEU"]["score"] > mixed["BLEU"]["score"]
    assert "case:lc" in lower["BLEU"]["signature"]
    assert "case:lc" in lower["chrF2"]["signature"]


@pytest.mark.parametrize(
    ("language", "told", "expected"),
    [
        ("de", "auto", "13a"), ("zh", "auto", "zh"), ("zh-Hans", "auto", "zh"),
        ("zh_TW", "auto", "zh"), ("ja", "auto", "ja-mecab"), ("ko", "auto", "ko-mecab"),
        ("zho", "auto", "zh"), ("zh", "char", "char"), ("de", "none", "none"), ("ja", "13a", "13a"),
    ],
)  # fmt: skip
def test_the_tokenizer_goes_by_the_target_language(language, told, expected):
    assert metrics.pick_tokenizer(language, EvaluationConfig(tokenize=told)) == expected


def test_chinese_is_cut_into_characters_and_the_signature_says_so():
    found = metrics.score_translations(["我喜欢猫。"], [["我喜欢狗。"]], "zh", PLAIN)
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
        metrics.score_translations(["a"], [["a"]], language, PLAIN)
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
        metrics.make_metrics("de", EvaluationConfig(tokenize="flores200"))


def test_counts_that_differ_are_reported():
    with pytest.raises(DataError, match="3 hypotheses, 2 references"):
        metrics.score_translations(HYPOTHESES, [REFERENCES, REFERENCES[:2]], "de", PLAIN)
    with pytest.raises(DataError, match="nothing to score"):
        metrics.score_translations([], [[]], "de", PLAIN)


def test_validation_gets_the_same_figures():
    full = metrics.score_translations(HYPOTHESES, [REFERENCES], "de", PLAIN)
    bleu, chrf = metrics.bleu_and_chrf(HYPOTHESES, REFERENCES, "de", PLAIN)
    assert bleu == pytest.approx(full["BLEU"]["score"], abs=0.01)
    assert chrf == pytest.approx(full["chrF2"]["score"], abs=0.01)


def test_every_test_set_is_translated_scored_and_kept(run, engine):
    found = evaluate.evaluate(run, engine)
    assert list(found) == ["test_one", "test_two"]
    kept = (run / "hypotheses" / "test_one.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert kept == [each.text for each in engine.translate(tiny_run.SOURCES)]
    again = sacrebleu.corpus_chrf(kept, [tiny_run.TARGETS])
    assert found["test_one"]["chrF2"]["score"] == pytest.approx(again.score, abs=0.01)
    reference = (run / "hypotheses" / "test_one.reference.txt").read_text(encoding="utf-8")
    assert reference.split("\n")[:-1] == tiny_run.TARGETS


def test_examples_are_lines_of_what_was_evaluated(run, engine):
    evaluate.evaluate(run, engine, ["test_one"])
    found = [each.text for each in engine.translate(tiny_run.SOURCES)]
    every = list(zip(tiny_run.SOURCES, tiny_run.TARGETS, found, strict=True))
    assert evaluate.sample_translations(run, "test_one", 3) == [every[0], every[2], every[4]]
    assert evaluate.sample_translations(run, "test_one", 99) == every
    assert evaluate.sample_translations(run, "test_one", 0) == []


def test_a_name_never_leads_out_of_the_folder(run):
    assert evaluate.hypothesis_path(run, "../../x", "").parent == run / "hypotheses"


def test_test_sets_are_chosen_by_name_and_a_checkpoint_will_do(run, engine):
    folder = run / "checkpoints" / "step-00000007"
    assert evaluate.evaluate(folder, engine, ["test_two"]).keys() == {"test_two"}
    with pytest.raises(ConfigError) as error:
        evaluate.evaluate(run, engine, ["test_tw"])
    assert str(error.value) == (
        "mt: error[TEST-NONE] --on test_tw: no such test set (did you mean test_two?)\n"
        "there are: test_one, test_two"
    )


def test_files_are_evaluated_instead(run, engine, tmp_path):
    (tmp_path / "some.en").write_text("Dogs.\n\nGirls sing.\n", encoding="utf-8")
    (tmp_path / "a.de").write_text("Hunde.\n\nMädchen singen.\n", encoding="utf-8")
    (tmp_path / "b.de").write_text("Die Hunde.\n\nEs singen Mädchen.\n", encoding="utf-8")
    both = [tmp_path / "a.de", tmp_path / "b.de"]
    found = evaluate.evaluate(run, engine, source=tmp_path / "some.en", references=both)
    assert "nrefs:2" in found["some.en"]["BLEU"]["signature"]
    kept = (run / "hypotheses" / "some.en.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert len(kept) == 3
    assert kept[1] == ""


def test_files_that_do_not_match_are_reported_with_both_counts(run, engine, tmp_path):
    (tmp_path / "some.en").write_text("Dogs.\n\nGirls sing.\n", encoding="utf-8")
    (tmp_path / "a.de").write_text("Hunde.\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.de: 1 lines, .*some\.en has 3"):
        evaluate.evaluate(run, engine, source=tmp_path / "some.en", references=[tmp_path / "a.de"])
    with pytest.raises(ConfigError, match="--source: there is no --reference"):
        evaluate.evaluate(run, engine, source=tmp_path / "some.en")
    with pytest.raises(ConfigError, match="--reference: there is no --source"):
        evaluate.evaluate(run, engine, references=[tmp_path / "a.de"])


def test_what_is_no_run_cannot_be_evaluated(engine, tmp_path):
    with pytest.raises(ModelError, match="RUN-NONE"):
        evaluate.evaluate(tmp_path, engine)


def test_a_recipe_without_test_sets_is_reported(tmp_path):
    run = tiny_run.make(tmp_path)
    lines = (run / "config.yaml").read_text(encoding="utf-8").split("\n")
    start = lines.index("  test:")
    end = next(i for i, line in enumerate(lines) if i > start and not line.startswith("   "))
    (run / "config.yaml").write_text("\n".join(lines[:start] + lines[end:]), encoding="utf-8")
    with pytest.raises(ConfigError, match="its recipe has no test sets"):
        evaluate.evaluate(run, open_engine(run, EngineOptions(threads=1)))
