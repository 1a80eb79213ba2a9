"""BLEU, chrF and TER are sacreBLEU's, for the right language; hypotheses are kept; errors told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import sacrebleu
import tiny_run

from mt.checkpoints import run_directory
from mt.config.schema import Languages
from mt.decoding.translate import open_engine
from mt.decoding.types import EngineOptions
from mt.errors import ConfigError, DataError, ModelError
from mt.evaluation import evaluate

ONE = EngineOptions(threads=1, precision="fp32")


@pytest.fixture(scope="module")
def engine(run):
    return open_engine(run, ONE)


def test_every_test_set_is_translated_scored_and_kept(run, engine):
    found = evaluate.evaluate(run, engine)
    assert list(found) == ["test_one", "test_two"]
    kept = (run / "hypotheses" / "test_one.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert kept == [each.text for each in engine.translate(tiny_run.SOURCES)]
    again = sacrebleu.corpus_chrf(kept, [tiny_run.TARGETS])
    assert found["test_one"].scores["chrF2"]["score"] == pytest.approx(again.score, abs=0.01)
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
    for name in ("../../x", "..\\x", "C:x", "a\0b\n", "\U0001f600" * 300, "/etc/passwd"):
        path = evaluate.hypothesis_path(run, name, ".reference")
        assert path.parent == run / "hypotheses"
        assert not set(path.name) & set("\\/:\0\n")
        assert len(path.name.encode()) < 256


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
    assert "nrefs:2" in found["some.en"].scores["BLEU"]["signature"]
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


@pytest.fixture
def other(tmp_path):
    """Another model of the same recipe."""
    return tiny_run.make(tmp_path, seed=2)


def test_a_baseline_is_another_model_or_a_file_of_its_translations(run, engine, other, tmp_path):
    theirs = evaluate.evaluate(other, open_engine(other, engine.options), ["test_one"])
    kept = tmp_path / "run" / "hypotheses" / "test_one.txt"
    settings = evaluate.read_settings(run, ["chrf", "ter"])
    found = evaluate.evaluate(run, engine, ["test_one"], settings=settings, baselines=[other, kept])
    both = found["test_one"].scores
    for name in ("chrF2", "TER"):
        model, file = (both[name]["baselines"][str(path)] for path in (other, kept))
        assert model == file
        assert model["score"] == pytest.approx(theirs["test_one"].scores[name]["score"], abs=0.01)
        assert {"seed:12345", "ar:10000", "bs:1000"} <= set(model["tests"].split("|"))
    alone = evaluate.evaluate(run, engine, ["test_one"], settings=settings)["test_one"].scores
    assert {name: {key: both[name][key] for key in alone[name]} for name in alone} == alone


def test_the_checkpoint_and_the_ensemble_are_those_of_the_model_alone():
    chosen = replace(ONE, checkpoint="step-7", ensemble_paths=(Path("more"),))
    assert evaluate._own(chosen) == ONE


def test_the_model_itself_is_no_better(run, engine):
    chrf = evaluate.read_settings(run, ["chrf"])
    found = evaluate.evaluate(run, engine, ["test_one"], settings=chrf, baselines=[run])
    (tested,) = found["test_one"].scores["chrF2"]["baselines"].values()
    assert (tested["difference"], tested["p_randomisation"], tested["p_bootstrap"]) == (0, 1, 1)
    assert tested["verdict"] == "within chance"


def test_with_several_directions_each_is_a_bucket(run, monkeypatch):
    def grouped(*targets):
        sets = {
            target: evaluate.TestSet(
                ["a b", "c"], [["x", "y"]], Languages(source="en", target=target)
            )
            for target in targets
        }
        return evaluate._group_lines(sets, run_directory.read_recipe(run))

    by = {name: [bucket.by for bucket in found] for name, found in grouped("de").items()}
    assert by == {"de": ["source words", "rarest word in training"]}
    first = {name: found[0] for name, found in grouped("de", "fr").items()}
    assert {name: (each.by, each.name) for name, each in first.items()} == {
        "de": ("direction", "en-de"), "fr": ("direction", "en-fr"),
    }  # fmt: skip
    assert first["fr"].rows.tolist() == [0, 1]
    monkeypatch.setattr(evaluate, "count_training_words", lambda *_: None)
    assert [bucket.by for bucket in grouped("de")["de"]] == ["source words"]


def test_what_is_no_baseline_is_refused_before_the_work(run, engine, tmp_path):
    (tmp_path / "short.de").write_text("Hunde.\n", encoding="utf-8")

    def refuse(kind, match, *names, baseline="short.de"):
        with pytest.raises(kind, match=match):
            evaluate.evaluate(run, None, names, options=ONE, baselines=[tmp_path / baseline])

    refuse(ConfigError, r"short\.de: a file of translations, and there are 2 test sets")
    refuse(DataError, r"short\.de: 1 lines, the test set has 7", "test_one")
    refuse(ModelError, "neither a model nor a file", "test_one", baseline="nowhere")


def test_metrics_are_kinds_names_of_the_recipe_or_yaml(run):
    chosen = evaluate.read_settings(run, ["chrfpp", "{kind: bleu, name: low, lowercase: true}"])
    assert [config.result_name for config in chosen.metrics] == ["chrF2++", "low"]
    assert evaluate.read_settings(run).metrics[0].kind == "bleu"
    with pytest.raises(ConfigError, match=r"--metric: .* unknown kind 'blue'"):
        evaluate.read_settings(run, ["blue"])


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


def test_options_replace_values_for_metrics_that_leave_them_open(run):
    metrics = ["bleu", "{kind: bleu, name: cased, lowercase: false}"]
    settings = evaluate.read_settings(run, metrics, {"lowercase": True, "tokenize": "char"})
    assert (settings.lowercase, settings.tokenize) == (True, "char")
    assert settings.metrics[1].lowercase is False
    assert evaluate.read_settings(run, (), {"lowercase": True}).metrics[1].kind == "chrf"
    with pytest.raises(ConfigError, match="--tokenize"):
        evaluate.read_settings(run, (), {"tokenize": "mosses"})
