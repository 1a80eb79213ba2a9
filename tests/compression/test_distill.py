"""Laws of distillation: what the student learns from, whose vocabulary it has, how it goes on."""

from __future__ import annotations

from distilled_runs import distil, weights

from mt.checkpoints.run_directory import read_recipe
from mt.cli import main
from mt.runtime import text_files
from mt.vocabulary.vocabulary import Vocabulary


def test_the_student_trains_on_the_teachers_words_with_its_vocabulary(distillation, capsys):
    assert distil("--run", "runs/student") == 0
    out = capsys.readouterr().out
    run = distillation / "runs" / "student"
    assert Vocabulary.load(run).digest == Vocabulary.load(distillation / "run").digest
    (corpus,) = read_recipe(run).data.train
    assert (
        list(text_files.read_lines(distillation / "runs/student/distilled/train-0/target.txt"))
        != []
    )
    assert corpus.target == str(run / "distilled" / "train-0" / "target.txt")
    header, first, second = out.splitlines()
    assert "some" in header
    assert (first.split()[0], second.split()[0]) == ("teacher", "student")
    assert "1.00x" in first
    before = weights(run)
    assert distil("--run", "runs/student") == 0  # nothing is left to do
    assert weights(run) == before
    assert "there already" in capsys.readouterr().err


def test_distillation_without_a_teacher_is_refused(distillation, capsys):
    assert main.run(["train", "student.yaml", "--set", "objective.kind=distillation"]) == 2
    assert "objective.teacher" in capsys.readouterr().err
