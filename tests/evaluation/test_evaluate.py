"""BLEU, chrF and TER are sacreBLEU's, for the right language; hypotheses are kept; errors told."""

from __future__ import annotations

import pytest
import sacrebleu
import tiny_run

from mt.decoding.translate import open_engine
from mt.decoding.types import EngineOptions
from mt.errors import ConfigError, DataError, ModelError
from mt.evaluation import evaluate


@pytest.fixture(scope="module")
def engine(run):
    return open_engine(run, EngineOptions(threads=1, precision="fp32"))


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
