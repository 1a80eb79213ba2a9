"""Laws of distillation: what the student learns from, whose vocabulary it has, how it goes on."""

from __future__ import annotations

import pytest
from distilled_runs import distil, weights

from mt.checkpoints.run_directory import read_recipe
from mt.cli import main
from mt.runtime import files
from mt.vocabulary.vocabulary import Vocabulary


def test_the_student_trains_on_the_teachers_words_with_its_vocabulary(folder, capsys):
    assert distil("--run", "runs/student") == 0
    out = capsys.readouterr().out
    run = folder / "runs" / "student"
    assert Vocabulary.load(run).digest == Vocabulary.load(folder / "run").digest
    (corpus,) = read_recipe(run).data.train
    assert list(files.read_lines(folder / "runs/student/distilled/train-0/target.txt")) != []
    assert corpus.target == str(run / "distilled" / "train-0" / "target.txt")
    header, first, second = out.splitlines()
    assert "some" in header
    assert (first.split()[0], second.split()[0]) == ("teacher", "student")
    assert "1.00x" in first
    before = weights(run)
    assert distil("--run", "runs/student") == 0  # nothing is left to do
    assert weights(run) == before
    assert "there already" in capsys.readouterr().err


def test_the_original_pairs_are_kept_on_demand(folder):
    assert distil("--keep-original", "--no-train") == 0
    settled = (folder / "runs/student/distilled/student.yaml").read_text(encoding="utf-8")
    assert settled.count("kind: text") == 2 + 2
    assert not (folder / "runs/student/checkpoints").exists()
    assert main.run(["train", "runs/student/distilled/student.yaml", "--run", "runs/student"]) == 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--level", "sequence", "--set", "objective.kind=distillation"], "objective.kind"),
        (["--level", "word", "--keep-original"], "--keep-original"),
        (["--level", "word", "--set", "objective.weigth=1"], "objective.weigth"),
        (["--set", "languages.target=fr"], "the teacher translates to de, the corpus to fr"),
    ],
)
def test_what_makes_no_sense_is_refused(folder, capsys, more, told):
    assert distil(*more) == 2
    assert told in capsys.readouterr().err


def test_distillation_without_a_teacher_is_refused(folder, capsys):
    assert main.run(["train", "student.yaml", "--set", "objective.kind=distillation"]) == 2
    assert "objective.teacher" in capsys.readouterr().err
