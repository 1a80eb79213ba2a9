"""A dry run is that of the training that follows, and leaves nothing but the cache."""

import json

import pytest
import sound_recipe
import torch

from mt.checkpoints import run_directory
from mt.config import recipe
from mt.config.plugins import plugin
from mt.errors import ConfigError, MachineError
from mt.runtime import files, memory
from mt.training import dry_run, loop

SETS = (
    "training.max_steps=11", "training.validate_every=4", "training.save_every=3",
    "training.keep_last=2", "training.report_every=1", "search.max_length_extra=0",
    "search.beams=2",
)  # fmt: skip


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dry_run, "SECONDS", 1e-9)
    monkeypatch.setattr(dry_run, "UPDATES", 5)
    sound_recipe.write({**sound_recipe.DATA, "recipe.yaml": sound_recipe.RECIPE})
    return lambda *sets: recipe.load(tmp_path / "recipe.yaml", (*SETS, *sets))[0]


def lines_of(run, key):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if key in line]


def checkpoint_bytes(run):
    folders = [*(run / "checkpoints").iterdir()]
    return sum(path.stat().st_size for folder in folders for path in folder.iterdir())


@pytest.mark.parametrize("sets", [(), ("training.average=3", "training.ema=0.9")])
def test_its_figures_are_those_of_the_training(load, tmp_path, monkeypatch, sets):
    settings, run, saves = load(*sets), tmp_path / "run", []
    real = run_directory.checkpoint.save_checkpoint
    monkeypatch.setattr(
        loop.checkpoint, "save_checkpoint", lambda *rest: saves.append(rest[1]) or real(*rest)
    )
    told = dry_run.forecast_training(settings, run)
    assert saves == []
    loop.train(settings, run)
    steps = [name for name in saves if name.startswith("step-")]
    updates = lines_of(run, "learning_rate")
    assert told.updates == len(updates) == 11
    average = bool(settings.training.average)
    assert told.validations == len(lines_of(run, "valid_loss")) + average
    assert len(steps) <= told.checkpoints == 6
    assert told.epochs == pytest.approx(1 + updates[-1]["epoch"], abs=1)
    kept = [folder.name for folder in run_directory.step_folders(run)]
    extra = told.checkpoint_bytes * (len(kept) - max(2, settings.training.average))
    assert told.disk_bytes + extra == pytest.approx(checkpoint_bytes(run), rel=0.15)
    assert told.pairs == 170
    padding = sum(line["padding_fraction"] for line in updates) / len(updates)
    assert told.padding == pytest.approx(padding, abs=0.03)


def test_it_writes_nothing_but_the_cache(load, tmp_path, monkeypatch):
    monkeypatch.setenv("MT_CACHE", str(tmp_path / "cache"))
    before = sorted(tmp_path.rglob("*"))
    dry_run.forecast_training(load(), tmp_path / "run")
    added = set(tmp_path.rglob("*")) - set(before)
    assert added
    assert all(path.is_relative_to(tmp_path / "cache") for path in added)


@pytest.mark.parametrize(
    ("free", "sets", "where"),
    [
        (10_000, (), "model"),
        (1_000_000, ("batching.micro_tokens=1000000",), "batching.micro_tokens"),
    ],
)
def test_what_does_not_fit_in_memory_ends_it_before_any_update(
    load, tmp_path, monkeypatch, free, sets, where
):
    monkeypatch.setattr(memory, "available_bytes", lambda: free)
    monkeypatch.setattr(dry_run, "train_update", None)
    with pytest.raises(MachineError) as caught:
        dry_run.forecast_training(load(*sets), tmp_path / "run")
    assert caught.value.problems[0][0] == where
    assert "does not fit" in str(caught.value)


def test_a_model_that_needs_memory_to_be_built_is_tried_all_the_same(load, tmp_path, monkeypatch):
    transformer = plugin("models", "transformer")
    real = transformer.build

    def build(config, vocabulary):
        assert torch.ones(1).item() == 1  # which has no value without memory
        return real(config, vocabulary)

    monkeypatch.setattr(transformer, "build", build)
    assert dry_run.forecast_training(load(), tmp_path / "run").updates == 11


def test_checkpoints_that_do_not_fit_on_the_disk(load, tmp_path, monkeypatch):
    told = dry_run.forecast_training(load(), tmp_path / "run")
    monkeypatch.setattr(files, "free_bytes", lambda path: told.most_disk_bytes - 1)
    with pytest.raises(MachineError) as caught:
        dry_run.forecast_training(load(), tmp_path / "run")
    assert caught.value.problems[0][0] == "training.keep_last"
    assert "does not fit" in str(caught.value)


def test_a_micro_batch_that_had_to_be_cut_does_not_fit(load, tmp_path, monkeypatch):
    real = dry_run.train_update

    def train_update(run, *rest):
        run.meter.splits += 1
        return real(run, *rest)

    monkeypatch.setattr(dry_run, "train_update", train_update)
    with pytest.raises(MachineError) as caught:
        dry_run.forecast_training(load(), tmp_path / "run")
    assert caught.value.problems[0][0] == "batching.micro_tokens"


def test_slow_updates_are_measured_often_enough(load, tmp_path, monkeypatch):
    made = []
    real = dry_run.train_update
    monkeypatch.setattr(dry_run, "train_update", lambda *rest: made.append(1) or real(*rest))
    monkeypatch.setattr(dry_run, "UPDATES", 25)
    varied = load("data.augment={typos: 0.1}")  # another thread makes the pairs of each epoch
    dry_run.forecast_training(varied, tmp_path / "run")
    assert len(made) >= 25 + 4
    monkeypatch.setattr(dry_run, "MOST_SECONDS", 1e-9)
    made.clear()
    dry_run.forecast_training(varied, tmp_path / "run")
    assert len(made) == 5 + 4


def test_streamed_data_need_an_end(load, tmp_path):
    told = dry_run.forecast_training(load("data.streaming=true"), tmp_path / "run")
    assert (told.pairs, told.epochs, told.updates) == (None, None, 11)
    endless = load("data.streaming=true", "training.max_steps=null", "training.max_epochs=2")
    with pytest.raises(ConfigError):
        dry_run.forecast_training(endless, tmp_path / "run")


def test_translations_have_the_length_of_references(load, tmp_path, monkeypatch):
    """An untrained model would end at once, or never."""
    seen = []
    real = dry_run.validate

    def validate(module, prepared, settings, *rest):
        result = real(module, prepared, settings, *rest)
        seen.append((prepared, result))
        return result

    monkeypatch.setattr(dry_run, "validate", validate)
    dry_run.forecast_training(load(), tmp_path / "run")
    ((prepared, result),) = seen
    encode = prepared.vocabulary.encode_target
    pieces = [len(ids) for ids in encode([text for _, _, text in result.samples])]
    wanted = prepared.valid.target_lengths.mean()
    assert sum(pieces) / len(pieces) == pytest.approx(wanted, rel=0.35)
