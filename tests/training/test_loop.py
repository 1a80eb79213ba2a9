"""A training meets gradients that are not finite and memory that does not suffice."""

from __future__ import annotations

import json

import pytest
from resumable_run import written

from mt.config import recipe
from mt.errors import DivergedError, MachineError, Stopped
from mt.training import loop, skipped_updates
from mt.training.session import TrainingRun

OBJECTIVE = '''
"""Cross-entropy that fails for chosen pairs: not a number, or out of memory."""
import torch
from pydantic import Field
from mt.config.section import Variant
from mt.training.cross_entropy import CrossEntropy

class Config(Variant):
    kind: str = "faulty_lab.objective"
    nan_every: int = 0
    """Pairs whose number is divisible by it have a loss that is not a number."""
    slots: int = 1000000
    """A micro-batch of more target slots does not fit."""

class Faulty(CrossEntropy):
    def forward(self, batch):
        (term,) = super().forward(batch)
        if batch.labels.numel() > self.config.slots:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        every = self.config.nan_every
        if self.training and every and bool((batch.rows % every == 0).any()):
            term = type(term)(term.name, term.total * float("nan"), term.count)
        return (term,)

def build(config, model, vocabulary, teacher):
    made = Faulty(model, 0.1)
    made.config = config
    return made
'''
CHANGES = {
    "model__dropout": 0, "model__attention_dropout": 0,
    "schedule__kind": "constant", "schedule__warmup_steps": 0,
    "batching__tokens": 300, "batching__window": 4,
    "training__max_epochs": 2, "training__average": 0, "training__patience": None,
    "training__validate_every": 50, "training__save_every": 50,
    "objective__kind": "faulty_lab.objective",
}  # fmt: skip
"""To the resumable run."""


@pytest.fixture(autouse=True)
def _lab(tmp_path, monkeypatch):
    (tmp_path / "faulty_lab").mkdir()
    (tmp_path / "faulty_lab" / "objective.py").write_text(OBJECTIVE)
    monkeypatch.syspath_prepend(tmp_path)


def settled(folder, **objective):
    changes = {f"objective__{key}": value for key, value in objective.items()}
    return recipe.load(written(folder, **CHANGES, **changes))[0]


def last_state(run):
    (folder,) = sorted((run / "checkpoints").glob("step-*"))[-1:]
    return json.loads((folder / "state.json").read_text())


READING = pytest.mark.parametrize(("read_every", "late"), [(1, False), (10, False), (10, True)])


@READING
def test_skipped_updates_are_counted_and_named_whenever_they_are_read(
    tmp_path, monkeypatch, capfd, read_every, late
):
    monkeypatch.setattr(TrainingRun, "sync_every", read_every)
    monkeypatch.setattr(TrainingRun, "reads_late", late)
    loop.train(settled(tmp_path, nan_every=140), tmp_path / "run")
    told = capfd.readouterr().err
    state = last_state(tmp_path / "run")
    assert 2 <= state["skipped"] < state["step"]
    assert told.count("mt: warning[NONFINITE]") == state["skipped"]
    assert "update skipped (1 so far); its" in told
    assert "numbered as prepared: " in told


def test_skipped_updates_are_counted_at_a_save_on_a_signal(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingRun, "sync_every", 10)
    real = loop.train_update

    def update(session, micros, state, after):
        session.stop.number = 15
        return real(session, micros, state, after)

    monkeypatch.setattr(loop, "train_update", update)
    with pytest.raises(Stopped):
        loop.train(settled(tmp_path, nan_every=1), tmp_path / "run")
    assert last_state(tmp_path / "run")["skipped_in_a_row"] == 1


def figures(run):
    """What is reported of each update and each validation, without what depends on the machine."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = ("step", "epoch", "loss", "grad_norm", "target_tokens", "valid_loss", "learning_rate")
    return [{key: line.get(key) for key in kept} for line in lines]


def test_what_is_reported_late_is_the_same_in_the_same_order(tmp_path, monkeypatch):
    for late in (False, True):
        monkeypatch.setattr(TrainingRun, "reads_late", late)
        loop.train(settled(tmp_path), tmp_path / f"late-{late}")
    assert figures(tmp_path / "late-True") == figures(tmp_path / "late-False")
    assert len(figures(tmp_path / "late-True")) > 4


@READING
def test_a_run_that_only_skips_ends_as_diverged(tmp_path, monkeypatch, read_every, late):
    monkeypatch.setattr(TrainingRun, "sync_every", read_every)
    monkeypatch.setattr(TrainingRun, "reads_late", late)
    monkeypatch.setattr(skipped_updates, "MAX_SKIPPED", 5)
    with pytest.raises(DivergedError, match="step 5: the gradient is not finite") as error:
        loop.train(settled(tmp_path, nan_every=1), tmp_path / "run")
    assert error.value.exit_code == 6
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_run_short_of_memory_ends_like_another(tmp_path, capfd):
    figures = {}
    for name, slots in (("roomy", 10**6), ("cramped", 100)):
        (tmp_path / name).mkdir()
        loop.train(settled(tmp_path / name, slots=slots), tmp_path / name / "run")
        lines = (tmp_path / name / "run" / "metrics.jsonl").read_text().splitlines()
        figures[name] = [json.loads(line) for line in lines]
    assert "mt: warning[OOM-SPLIT] step 1: memory did not suffice for" in capfd.readouterr().err
    assert sum(line.get("memory_splits", 0) for line in figures["cramped"]) > 0
    assert sum(line.get("memory_splits", 0) for line in figures["roomy"]) == 0
    for a, b in zip(figures["roomy"], figures["cramped"], strict=True):
        (key,) = {"loss", "valid_loss"} & a.keys()
        assert a[key] == pytest.approx(b[key], rel=1e-3)


def test_a_pair_that_fits_nowhere_ends_the_run(tmp_path):
    with pytest.raises(MachineError, match=r"error\[OOM\]"):
        loop.train(settled(tmp_path, slots=2), tmp_path / "run")
