"""Checkpoints appear whole, are verified, and a damaged one is never used."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

import faults
import pytest
import torch
from saved_runs import SMALL, made, saved

from mt.checkpoints import checkpoint, run_directory
from mt.checkpoints.train_state import TrainState
from mt.errors import MachineError, ModelError
from mt.models import transformer
from mt.runtime import files
from mt.training.ema import MovingAverage


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_restore_gives_back_every_bit(tmp_path, vocabulary):
    step, optimizer = made(vocabulary)
    average = MovingAverage(step, 0.9)
    average.update(made(vocabulary, seed=3)[0], 5, torch.tensor(True))
    tensors = checkpoint.training_tensors(step, average.module, optimizer)
    state = TrainState(step=7, tokens=9, epoch=1, update=3, best=0.25, scaler={"scale": 2.0})
    folder = checkpoint.save_checkpoint(
        tmp_path, "step-00000007", average.module.model, state, {}, tensors
    )

    other, another = made(vocabulary, seed=2)
    copy = MovingAverage(other, 0.9)
    assert checkpoint.restore_training(folder, other, copy.module, another) == state
    assert equal(step, other)
    assert equal(average.module, copy.module)
    for a, b in zip(step.parameters(), other.parameters(), strict=True):
        for key, value in optimizer.state[a].items():
            assert torch.equal(value, another.state[b][key])


def test_shared_weights_are_stored_once(tmp_path, vocabulary):
    folder = saved(tmp_path, vocabulary)
    names = list(checkpoint.load_weights(folder))
    assert "target_embedding.weight" in names
    assert not any("source_embedding" in name or "projection" in name for name in names)


@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors", "state.json"])
def test_any_flipped_byte_is_found(tmp_path, vocabulary, name):
    folder = saved(tmp_path, vocabulary)
    raw = bytearray((folder / name).read_bytes())
    for position in range(0, len(raw), max(1, len(raw) // 40)):
        raw[position] ^= 4
        (folder / name).write_bytes(raw)
        assert checkpoint.integrity_error(folder) is not None
        raw[position] ^= 4
    (folder / name).write_bytes(raw)
    assert checkpoint.integrity_error(folder) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "MANIFEST.json").unlink(),
        lambda f: (f / "MANIFEST.json").write_text("{"),
        lambda f: (f / "MANIFEST.json").write_text('{"format": 99, "files": {}}'),
        lambda f: (f / "model.safetensors").write_bytes(b""),
        lambda f: (f / "state.json").unlink(),
        lambda f: (f / "MANIFEST.json").write_text(
            json.dumps({"format": 1, "files": {"../x": {"bytes": 1, "sha256": ""}}})
        ),
    ],
)
def test_a_damaged_newest_is_set_aside_and_the_one_before_is_used(tmp_path, vocabulary, damage):
    good, bad = saved(tmp_path, vocabulary, 10), saved(tmp_path, vocabulary, 20)
    damage(bad)
    told = []
    assert run_directory.latest_sound_checkpoint(tmp_path, told.append) == good
    assert "CKPT-SKIP" in told[0]
    assert (bad.parent / f".bad-{bad.name}").is_dir()


def test_when_all_are_damaged_nothing_is_changed(tmp_path, vocabulary):
    folder = saved(tmp_path, vocabulary)
    (folder / "MANIFEST.json").unlink()
    with pytest.raises(ModelError, match="CKPT-NONE"):
        run_directory.latest_sound_checkpoint(tmp_path, print)
    assert folder.is_dir()


def test_latest_goes_by_number_not_by_time(tmp_path, vocabulary):
    for number in (100, 9, 20):
        saved(tmp_path, vocabulary, number)
    assert run_directory.latest_sound_checkpoint(tmp_path, print).name == "step-00000100"


def test_prune_keeps_the_best_and_the_last(tmp_path, vocabulary):
    folders = [saved(tmp_path, vocabulary, number) for number in (1, 2, 3, 4, 5)]
    run_directory.mark_best(tmp_path, folders[1])
    run_directory.delete_old_checkpoints(tmp_path, 2, lambda state: True)
    assert sorted(p.name[-1] for p in (tmp_path / "checkpoints").iterdir()) == ["2", "4", "5"]


def test_prune_forgets_what_was_not_planned_once_there_is_a_newer_one(tmp_path, vocabulary):
    for number in (1, 2, 3, 4, 5):
        saved(tmp_path, vocabulary, number)
    run_directory.delete_old_checkpoints(tmp_path, 3, lambda state: state.step < 3)
    assert sorted(p.name[-1] for p in (tmp_path / "checkpoints").iterdir()) == ["1", "2", "5"]


def test_weights_that_are_not_finite_are_never_saved(tmp_path, vocabulary):
    step, _ = made(vocabulary)
    with torch.no_grad():
        step.model.target_embedding.weight[3, 3] = float("nan")
    with pytest.raises(ModelError, match="target_embedding"):
        checkpoint.save_checkpoint(tmp_path, "step-00000001", step.model, TrainState(), {})
    assert not (tmp_path / "checkpoints").exists()


def test_a_model_of_another_shape_is_refused_by_name(tmp_path, vocabulary):
    folder = saved(tmp_path, vocabulary)
    config = transformer.Config(**{**SMALL, "d_ff": 16})
    with pytest.raises(ModelError, match=r"inner.weight: is \(8, 8\), the model wants \(16, 8\)"):
        checkpoint.load_into(
            transformer.build(config, vocabulary), checkpoint.load_weights(folder), folder
        )


def test_a_save_forces_all_to_the_disk_before_its_name_appears(tmp_path, vocabulary, monkeypatch):
    """The manifest last, then the folders; tests/system/test_syscalls.py sees the system calls."""
    events, fsync, replace = [], os.fsync, os.replace

    def noted_fsync(handle):
        events.append(("force", os.fstat(handle).st_ino))
        fsync(handle)

    def noted_replace(source, target, **more):
        replace(source, target, **more)
        events.append(("name", Path(target).name))

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    folder = saved(tmp_path, vocabulary, 5)
    named = events.index(("name", folder.name))
    files = [name for what, name in events[:named] if what == "name"]
    assert files[-1] == checkpoint.MANIFEST
    assert set(files) == {path.name for path in folder.iterdir()}
    for path in (*folder.iterdir(), folder):
        assert ("force", path.stat().st_ino) in events[:named], path
        if path != folder:  # before its own name, too
            own = events.index(("name", path.name))
            assert ("force", path.stat().st_ino) in events[:own], path
    assert ("force", folder.parent.stat().st_ino) in events[named:]


@pytest.mark.parametrize("name", ["../outside", "ABSOLUTE", "link"])
def test_a_manifest_that_lists_a_file_elsewhere_is_refused(tmp_path, vocabulary, name):
    """With the size and the hash of that file."""
    folder = saved(tmp_path, vocabulary)
    outside = folder.parent / "outside"
    outside.write_text("x")
    (folder / "link").symlink_to(outside)
    listed = str(outside) if name == "ABSOLUTE" else name
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    manifest["files"][listed] = {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    assert checkpoint.integrity_error(folder) == f"{listed} is missing or not a file"


@pytest.mark.parametrize("point", ["create", "write", "fsync", "replace", "rename"])
@pytest.mark.parametrize("number", [1, 3])
def test_a_full_disk_leaves_the_earlier_checkpoint_and_no_litter(
    tmp_path, vocabulary, monkeypatch, point, number
):
    good = saved(tmp_path, vocabulary, 1)
    faults.counts.clear()
    monkeypatch.setenv("MT_FAULT", f"{point}:{number}:enospc")
    with contextlib.suppress(MachineError):  # a fault point may come less often than asked
        saved(tmp_path, vocabulary, 2)
    monkeypatch.delenv("MT_FAULT")
    assert run_directory.latest_sound_checkpoint(tmp_path, print) in (
        good,
        good.parent / "step-00000002",
    )
    assert checkpoint.integrity_error(good) is None
    assert not list((tmp_path / "checkpoints").glob(".tmp-*"))


def test_a_full_disk_leaves_the_checkpoint_that_was_to_be_saved_again(
    tmp_path, vocabulary, monkeypatch
):
    folder = saved(tmp_path, vocabulary)

    def full(*arguments):
        raise MachineError("DISK-FULL", folder, "the disk is full", "free some space")

    monkeypatch.setattr(files, "write_file", full)
    with pytest.raises(MachineError):
        saved(tmp_path, vocabulary, seed=2)
    assert checkpoint.integrity_error(folder) is None
