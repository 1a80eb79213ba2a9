"""Laws of distillation: what the student learns from, whose vocabulary it has, how it goes on."""

from __future__ import annotations

import hashlib

import plain_losses
import pytest
import tiny_run
import torch

from mt.checkpoints.run_directory import read_recipe
from mt.cli import main
from mt.config.plugins import plugin
from mt.models import transformer
from mt.runtime import files
from mt.training import losses, teacher
from mt.training.objectives import distillation
from mt.vocabulary.vocabulary import Vocabulary

CONFIG = """
languages: {source: en, target: de}
data:
  train: [{kind: text, source: train.en, target: train.de}]
  valid: {kind: text, source: train.en, target: train.de}
  test:
    some: {kind: text, source: train.en, target: train.de}
  max_length: 40
  processes: 1
  drop_overlap: false
vocabulary: {size: 410}
model: {d_model: 16, n_heads: 2, d_ff: 16, encoder_layers: 1, decoder_layers: 1}
schedule: {kind: constant, warmup_steps: 0}
batching: {tokens: 40, micro_tokens: 100}
training: {max_steps: 4, validate_every: 4, save_every: 2, monitor: loss}
runtime: {threads: 1, precision: fp32, device: cpu}
search: {kind: greedy, max_length_extra: 3}
"""
FAST = ["--threads", "1", "--precision", "fp32", "--processes", "1"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a teacher in it, and a student's recipe."""
    tiny_run.make(tmp_path)
    (tmp_path / "student.yaml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def distil(*more):
    return main.run(["distill", "run", "student.yaml", *FAST, *more])


def weights(run):
    folder = (run / "best").resolve()
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


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


def test_word_level_resumes_bit_for_bit_and_keeps_no_teacher(folder):
    sets = ["--level", "word", "--set", "training.ema=0.9"]
    assert distil("--run", "runs/whole", *sets) == 0
    assert distil("--run", "runs/parts", *sets, "--set", "training.max_steps=2") == 0
    assert distil("--run", "runs/parts", *sets) == 0
    assert weights(folder / "runs/parts") == weights(folder / "runs/whole")
    run = folder / "runs/whole"
    assert not (run / "distilled" / "train-0").exists()
    from safetensors.torch import load_file

    ours = load_file((run / "best").resolve() / "training.safetensors")
    assert not [name for name in ours if "teacher" in name]
    names = {name.removeprefix("weights/") for name in ours if name.startswith("weights/")}
    assert all(name.startswith("model.") for name in names)
    (run.parents[1] / "run").rename(folder / "gone")  # what was trained needs no teacher
    assert main.run(["eval", "runs/whole", "--json"]) == 0


def test_a_teacher_that_changed_is_told_on_resume(folder, capsys):
    sets = ["--level", "word"]
    assert distil(*sets, "--set", "training.max_steps=2") == 0
    (folder / "other").mkdir()
    (folder / "run").rename(folder / "first")
    tiny_run.make(folder / "other", seed=2).rename(folder / "run")
    capsys.readouterr()
    assert distil(*sets) == 3
    assert "the teacher changed since step-00000002" in capsys.readouterr().err


def test_another_vocabulary_is_told_by_sizes_and_hashes(folder, capsys):
    (folder / "other").mkdir()
    tiny_run.make(folder / "other", kind="whitespace")
    sets = ["--set", "vocabulary.path=other/run"]
    assert distil("--level", "word", *sets) == 4
    err = capsys.readouterr().err
    for run in ("run", "other/run"):
        known = Vocabulary.load(folder / run)
        assert f"{known.size:,} pieces, {known.digest[:16]}" in err
    assert not (folder / "runs").exists()
    told = ["--set", "objective.kind=distillation", "--set", "objective.teacher=run"]
    assert main.run(["train", "student.yaml", *told, *sets]) == 4
    assert "VOCAB-MISMATCH" in capsys.readouterr().err


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


# ----------------------------------------------------------------------------- the loss


@pytest.fixture
def sides():
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    hidden, weight, bias = draw(40, 8), draw(90, 8), draw(90)
    theirs, projection = draw(40, 12), draw(90, 12)
    labels = torch.randint(1, 90, (40,), generator=generator)
    labels[[3, 17]] = 0
    leaves = [t.requires_grad_() for t in (hidden, weight, bias)]
    return leaves, labels, theirs, projection


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_chunked_loss_and_its_gradients_are_torchs_own(
    sides, monkeypatch, weight, temperature, smoothing
):
    monkeypatch.setattr(losses, "CHUNK", 7)
    config = distillation.Config(weight=weight, temperature=temperature, label_smoothing=smoothing)
    leaves, labels, theirs, projection = sides
    hidden, matrix, bias = leaves
    fast = distillation.distillation_loss(
        hidden, matrix, bias, labels, theirs, lambda states: states @ projection.T, config
    )
    plain = plain_losses.plain_distillation_loss(
        hidden @ matrix.T + bias, theirs @ projection.T, labels, config
    )
    torch.testing.assert_close(fast, plain)
    gradients = [torch.autograd.grad(loss, leaves) for loss in (fast, plain)]
    for ours, torchs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=1e-5)


def test_a_student_that_is_its_teacher_has_nothing_to_learn_of_it(vocabulary):
    from mt.data import collate

    config = transformer.Config(
        d_model=16, n_heads=2, d_ff=16, encoder_layers=1, decoder_layers=1, dropout=0
    )
    model = transformer.build(config, vocabulary)
    same = teacher.ModelTeacher(transformer.build(config, vocabulary))
    same.model.load_state_dict(model.state_dict())
    batch = collate.to_batch(
        [torch.tensor([70, 71, 3]).numpy()], [torch.tensor([72, 3]).numpy()], [0]
    )
    settings = distillation.Config(weight=1.0, temperature=2.0)
    objective = plugin("objectives", "distillation").build(settings, model, vocabulary, same)
    (term,) = objective.train()(batch)
    assert term.total.item() == pytest.approx(0, abs=1e-5)
    assert len(list(objective.parameters())) == len(list(model.parameters()))
    (plain,) = objective.eval()(batch)
    assert plain.total.item() > 1  # in validation the references alone count
    assert all(not p.requires_grad for p in same.model.parameters())
