"""A teacher: fixed by its hash, of one vocabulary, and kept by no checkpoint."""

from __future__ import annotations

import tiny_run
from distilled_runs import distil, weights

from mt.checkpoints.run_directory import best_checkpoint
from mt.cli import main
from mt.vocabulary.vocabulary import Vocabulary


def test_word_level_resumes_bit_for_bit_and_keeps_no_teacher(distillation):
    sets = ["--level", "word", "--set", "training.ema=0.9"]
    assert distil("--run", "runs/whole", *sets) == 0
    assert distil("--run", "runs/parts", *sets, "--set", "training.max_steps=2") == 0
    assert distil("--run", "runs/parts", *sets) == 0
    assert weights(distillation / "runs/parts") == weights(distillation / "runs/whole")
    run = distillation / "runs/whole"
    assert not (run / "distilled" / "train-0").exists()
    from safetensors.torch import load_file

    ours = load_file(best_checkpoint(run) / "training.safetensors")
    assert not [name for name in ours if "teacher" in name]
    names = {name.removeprefix("weights/") for name in ours if name.startswith("weights/")}
    assert all(name.startswith("model.") for name in names)
    (run.parents[1] / "run").rename(distillation / "gone")  # what was trained needs no teacher
    assert main.run(["eval", "runs/whole", "--json"]) == 0


def test_a_teacher_that_changed_is_reported_on_resume(distillation, capsys):
    sets = ["--level", "word"]
    assert distil(*sets, "--set", "training.max_steps=2") == 0
    (distillation / "other").mkdir()
    (distillation / "run").rename(distillation / "first")
    tiny_run.make(distillation / "other", seed=2).rename(distillation / "run")
    capsys.readouterr()
    assert distil(*sets) == 3
    assert "the teacher changed since step-00000002" in capsys.readouterr().err


def test_another_vocabulary_is_reported_by_sizes_and_hashes(distillation, capsys):
    (distillation / "other").mkdir()
    tiny_run.make(distillation / "other", kind="whitespace")
    sets = ["--set", "vocabulary.path=other/run"]
    assert distil("--level", "word", *sets) == 4
    err = capsys.readouterr().err
    for run in ("run", "other/run"):
        known = Vocabulary.load(distillation / run)
        assert f"{known.size:,} pieces, {known.digest[:16]}" in err
    assert not (distillation / "runs").exists()
    told = ["--set", "objective.kind=distillation", "--set", "objective.teacher=run"]
    assert main.run(["train", "student.yaml", *told, *sets]) == 4
    assert "VOCAB-MISMATCH" in capsys.readouterr().err
