"""A run that was stopped anywhere and resumed ends with the same bits as one that was not."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import faults
import pytest
import torch
from resumable_run import bits, written

from mt.checkpoints import checkpoint, run_directory
from mt.checkpoints.train_state import TrainState
from mt.cli import main
from mt.config import recipe
from mt.data.batch_sampler import plan_epoch
from mt.data.prepare import prepare
from mt.errors import ConfigError, DataError, MachineError, Stopped
from mt.runtime import model_files
from mt.training import loop


@pytest.fixture(scope="module", autouse=True)
def _one_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def run_to_the_end(path, run, stops, monkeypatch):
    """Train; SIGTERM comes after each of these steps, and the run is begun again."""
    settled, _ = recipe.load(path)
    real, pending = loop.train_update, list(stops)

    def update(session, micros, state, after):
        state = real(session, micros, state, after)
        if pending and state.step == pending[0]:
            pending.pop(0)
            os.kill(os.getpid(), signal.SIGTERM)
        return state

    monkeypatch.setattr(loop, "train_update", update)
    for stop in stops:
        with pytest.raises(Stopped, match=f"stopped by SIGTERM at step {stop}, saved"):
            loop.train(settled, run)
    loop.train(settled, run)
    assert not pending


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    settled, _ = recipe.load(written(folder))
    loop.train(settled, folder / "run")
    return folder / "run"


def samples(run):
    """The translations that were logged at each validation."""
    data = (run / "samples.jsonl").read_bytes()
    assert data.count(b"\n") > 1
    return data


def test_the_run_has_epochs_and_accumulation(whole):
    """Else the tests below would prove little."""
    last = sorted((whole / "checkpoints").glob("step-*"))[-1]
    state = TrainState(**json.loads((last / "state.json").read_text()))
    assert state.epoch == 3
    assert state.step >= 15


@pytest.mark.parametrize(
    "stops",
    [
        [1, 5, 7, 13],
        [2, 3, 4],
        [6, 8, 14, 16],
        [11, 17],
        *(
            pytest.param(stops, marks=pytest.mark.slow)
            for stops in ([1], [5], [6], [7], [13], [17], [7, 8, 14], [11, 16, 17])
        ),
    ],
    ids=str,
)
def test_stop_and_resume_equals_uninterrupted(whole, tmp_path, monkeypatch, stops):
    run_to_the_end(written(tmp_path), tmp_path / "run", stops, monkeypatch)
    assert bits(tmp_path / "run") == bits(whole)
    assert samples(tmp_path / "run") == samples(whole)


def test_resume_at_an_epochs_end(whole, tmp_path, monkeypatch):
    lines = (whole / "metrics.jsonl").read_text().splitlines()
    assert lines
    last = sorted((whole / "checkpoints").glob("step-*"))[-1]
    steps = json.loads((last / "state.json").read_text())["step"]
    run_to_the_end(written(tmp_path), tmp_path / "run", [steps // 3, 2 * (steps // 3)], monkeypatch)
    assert bits(tmp_path / "run") == bits(whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"runtime__precision": "bf16"}, {"runtime__precision": "fp16"}, {"optimizer__kind": "muon"},
        {"model": {"kind": "rnn", "d_model": 12, "units": 16}},
    ],
    ids=["bf16", "fp16", "muon", "rnn"],
)  # fmt: skip
def test_resume_otherwise(tmp_path, monkeypatch, changes):
    """In half precision, with another optimizer, and another model."""
    for name, stops in (("a", []), ("b", [3, 8])):
        (tmp_path / name).mkdir()
        path = written(tmp_path / name, training__max_epochs=2, **changes)
        run_to_the_end(path, tmp_path / name / "run", stops, monkeypatch)
    assert bits(tmp_path / "a" / "run") == bits(tmp_path / "b" / "run")


@pytest.mark.torture
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_run_resumes_twice(tmp_path, monkeypatch):
    """The names of its tensors are those of the model."""
    ends = []
    for name, stops in (("a", []), ("b", [3, 8])):
        (tmp_path / name).mkdir()
        path = written(tmp_path / name, training__max_epochs=2, runtime__compile=True)
        run_to_the_end(path, tmp_path / name / "run", stops, monkeypatch)
        ends.append(bits(tmp_path / name / "run"))
    assert ends[0] == ends[1]
    names = checkpoint.load_weights(run_directory.open_run(tmp_path / "b" / "run").folder)
    assert not [name for name in names if "_orig_mod" in name or name.startswith("module.")]


def test_resume_with_a_scale_that_changes(tmp_path, monkeypatch):
    """That of fp16 doubles at each update here, and falls where a gradient overflows."""
    scaler = functools.partial(torch.amp.GradScaler, init_scale=2.0**20, growth_interval=1)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    ends = []
    for name, stops in (("a", []), ("b", [5, 10])):
        (tmp_path / name).mkdir()
        path = written(tmp_path / name, training__max_epochs=2, runtime__precision="fp16")
        run_to_the_end(path, tmp_path / name / "run", stops, monkeypatch)
        ends.append(bits(tmp_path / name / "run"))
    assert ends[0] == ends[1]
    (last,) = [value for name, value in ends[0].items() if value and "state" in name][-1:]
    assert last["skipped"] > 0
    assert last["scaler"]["scale"] > 2.0**20


CUT_ANEW = {
    "vocabulary__sampling": {"source": {"dropout": 0.2}, "target": {"dropout": 0.1}},
    "objective": {"kind": "r_drop", "alignment_weight": 0.2},
    "model__word_dropout": {"source": 0.1, "target": 0.1},
}


@pytest.mark.parametrize("stops", [[2], [9, 10, 15]], ids=str)
def test_resume_with_subword_regularization(small_data, tmp_path, monkeypatch, stops):
    """Stopped within the first epoch, and three times later, at an epoch's end, too."""
    run_to_the_end(written(tmp_path, **CUT_ANEW), tmp_path / "run", stops, monkeypatch)
    assert bits(tmp_path / "run") == bits(small_data)


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    """An uninterrupted run with all that is done against overfitting."""
    folder = tmp_path_factory.mktemp("small_data")
    loop.train(recipe.load(written(folder, **CUT_ANEW))[0], folder / "run")
    return folder / "run"


def test_updates_have_the_pieces_of_their_epoch(small_data, whole):
    """Else the tests above would prove little; and what is prepared stays as it was."""
    prepared = [
        model_files.read_json(run / "report.json")["tokens"]["train"] for run in (small_data, whole)
    ]
    last = sorted((small_data / "checkpoints").glob("step-*"))[-1]
    assert checkpoint.read_state(last).tokens > 1.02 * 3 * prepared[0]["target"]
    assert prepared[0] == prepared[1]


def command(python, path, run, fault=None):
    environment = faults.environment(fault or "", str(Path(__file__).parents[2]))
    return subprocess.run(
        [python, "-m", "mt", "train", str(path), "--run", str(run)],
        capture_output=True, text=True, env=environment, timeout=300,
    )  # fmt: skip


def test_killed_while_saving_and_run_again_equals_uninterrupted(whole, tmp_path, python):
    """The real command; tests/system/test_torture.py has all the other points."""
    path = written(tmp_path)
    killed = command(python, path, tmp_path / "run", "rename:2:kill")
    assert killed.returncode == -signal.SIGKILL
    again = command(python, path, tmp_path / "run")
    assert (again.returncode, again.stdout) == (0, "")
    assert "Traceback" not in again.stderr
    assert bits(tmp_path / "run") == bits(whole)
    finished = command(python, path, tmp_path / "run")
    assert finished.returncode == 0
    assert "has finished" in finished.stderr


def test_an_update_has_several_micro_batches(whole):
    """Else the tests above would not resume an accumulation."""
    settled = run_directory.read_recipe(whole)
    resolved = json.loads((whole / "resolved.json").read_text())
    epoch = plan_epoch(settled, prepare(settled, lambda line: None).train, resolved, 0)
    updates = [u for window in range(len(epoch.windows)) for u in epoch.updates(window)]
    assert len(epoch.windows) > 1
    assert all(len(micros) > 1 for micros in updates)


def test_resume_where_patience_ends_the_run(tmp_path, monkeypatch):
    changes = {
        "training__patience": 3, "training__validate_every": 2, "training__max_epochs": 50,
        "schedule__kind": "constant", "optimizer__learning_rate": 0.3,
    }  # fmt: skip
    ends = []
    for name, stops in (("a", []), ("b", [3, 6, 7])):
        (tmp_path / name).mkdir()
        run_to_the_end(
            written(tmp_path / name, **changes), tmp_path / name / "run", stops, monkeypatch
        )
        ends.append(bits(tmp_path / name / "run"))
    assert ends[0] == ends[1]
    (last,) = {str(value["finished"]) for value in ends[0].values() if "finished" in value} - {""}
    assert "training.patience" in last


def test_a_disk_that_fails_once_is_tried_again(whole, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "RETRY_SECONDS", (0.0,))
    faults.counts.clear()
    monkeypatch.setenv("MT_FAULT", "replace:8:eio")  # in the first checkpoint
    loop.train(recipe.load(written(tmp_path))[0], tmp_path / "run")
    assert capsys.readouterr().err.count("Input/output error; trying again") == 1
    assert bits(tmp_path / "run") == bits(whole)


def test_a_disk_that_goes_on_failing_ends_it(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "RETRY_SECONDS", (0.0, 0.0))
    settled, _ = recipe.load(written(tmp_path))
    prepare(settled, lambda line: None)
    monkeypatch.setenv("MT_FAULT", "rename:*:eio")
    with pytest.raises(MachineError, match="DISK"):
        loop.train(settled, tmp_path / "run")
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_logs_that_cannot_be_written_change_nothing(whole, tmp_path, capsys):
    run = tmp_path / "run"
    (run / "metrics.jsonl").mkdir(parents=True)
    (run / "samples.jsonl").mkdir()
    (run / "trace.jsonl").mkdir()
    (run / "tensorboard").write_text("in the way")
    loop.train(recipe.load(written(tmp_path))[0], run, trace=True)
    assert capsys.readouterr().err.count("cannot be written") == 4
    assert bits(run) == bits(whole)


def test_a_signal_in_the_last_validation_loses_nothing(whole, tmp_path, monkeypatch):
    lines = (whole / "metrics.jsonl").read_text().splitlines()
    validations, calls, real = sum("valid_loss" in line for line in lines), [], loop.validate

    def validate(*arguments):
        calls.append(1)
        if len(calls) == validations:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(loop, "validate", validate)
    settled, _ = recipe.load(written(tmp_path))
    with pytest.raises(Stopped):
        loop.train(settled, tmp_path / "run")
    loop.train(settled, tmp_path / "run")
    assert bits(tmp_path / "run") == bits(whole)
    assert samples(tmp_path / "run") == samples(whole)


def test_a_run_whose_validation_loss_is_no_number_still_ends(tmp_path, monkeypatch):
    real = loop.validate

    def validate(*arguments):
        result = real(*arguments)
        result.values["valid_loss"] = float("nan")
        return result

    monkeypatch.setattr(loop, "validate", validate)
    settled, _ = recipe.load(written(tmp_path, training__max_epochs=1))
    loop.train(settled, tmp_path / "run")
    assert not (tmp_path / "run" / "best").exists()


def test_a_disk_too_small_for_checkpoints_is_reported_before_training(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(MachineError, match=r"DISK-FULL.*will be needed there, and 0 MB are free"):
        loop.train(recipe.load(written(tmp_path))[0], tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_what_cannot_change_the_weights_may_be_changed(tmp_path):
    changes = {"schedule__kind": "constant", "training__max_epochs": 1}
    loop.train(recipe.load(written(tmp_path, **changes))[0], tmp_path / "run")
    changes |= {
        "training__max_epochs": 2, "training__report_every": 2, "training__save_every": 4,
        "training__keep_last": 3, "training__samples": 1, "search__max_length_extra": 3,
        "training__patience": None,
    }  # fmt: skip
    loop.train(recipe.load(written(tmp_path, **changes))[0], tmp_path / "run")
    assert run_directory.open_run(tmp_path / "run", "last").state.epoch == 2


def test_another_torch_is_reported(tmp_path, capsys):
    settled, _ = recipe.load(written(tmp_path, training__max_epochs=1))
    loop.train(settled, tmp_path / "run")
    resolved = tmp_path / "run" / "resolved.json"
    resolved.write_text(json.dumps({**json.loads(resolved.read_text()), "torch": "1.0"}))
    assert "warning[TORCH]" not in capsys.readouterr().err
    loop.train(settled, tmp_path / "run")
    assert "warning[TORCH] the run began with torch 1.0" in capsys.readouterr().err


def test_a_changed_recipe_is_refused_key_by_key(whole, tmp_path):
    settled, _ = recipe.load(written(tmp_path, model__dropout=0.3, batching__tokens=600))
    with pytest.raises(ConfigError) as error:
        loop.train(settled, whole)
    assert "model.dropout: 0.1 -> 0.3" in str(error.value)
    assert "batching.tokens: 500 -> 600" in str(error.value)


TEXT_CHANGES = {
    "data__train": [{"kind": "text", "source": "text.source", "target": "text.target"}],
    "data__valid": {"kind": "text", "source": "valid.source", "target": "valid.target"},
    "vocabulary__kind": "whitespace", "schedule__kind": "constant", "training__max_epochs": 1,
    "training__average": 0,
}  # fmt: skip


@pytest.fixture
def text_run(tmp_path):
    """The folder of a run on text files that has made an epoch."""
    folder = tmp_path
    for name, lines in (("text", ["a b c d e f"] * 40 + ["g h"]), ("valid", ["a b", "c d g"])):
        for side in ("source", "target"):
            (folder / f"{name}.{side}").write_text("".join(f"{line}\n" for line in lines))
    loop.train(recipe.load(written(folder, **TEXT_CHANGES))[0], folder / "run")
    return folder


def resumed(folder, **changes):
    path = written(folder, **{**TEXT_CHANGES, "training__max_epochs": 2, **changes})
    loop.train(recipe.load(path)[0], folder / "run")


@pytest.mark.parametrize("name", ["text.source", "text.target", "valid.source"])
def test_a_changed_file_is_refused_by_name(text_run, name):
    folder = text_run
    before = (folder / name).read_bytes()
    (folder / name).write_bytes(before.replace(b"g", b"a"))  # one byte
    old, new = (hashlib.sha256(data).hexdigest() for data in (before, before.replace(b"g", b"a")))
    saved = bits(folder / "run")
    with pytest.raises(DataError) as error:
        resumed(folder)
    last = sorted((folder / "run" / "checkpoints").glob("step-*"))[-1].name
    assert str(error.value).splitlines() == [
        f"mt: error[RESUME-DATA] {folder / name}: changed since {last}: sha256 {old} -> {new}",
        "restore the data and their files, or start over with --fresh",
    ]
    assert bits(folder / "run") == saved
    (folder / name).write_bytes(before)
    resumed(folder)


def test_a_run_that_was_moved_with_its_data_goes_on(text_run, capsys):
    """And its data are found where they are, as seen from the run."""
    old = text_run
    (old / "data").mkdir()
    for path in [*old.glob("text.*"), *old.glob("valid.*")]:
        path.rename(old / "data" / path.name)
    new = old.with_name(f"{old.name}-moved")
    names = [f"data/{name}.{side}" for name in ("text", "valid") for side in ("source", "target")]
    moved = {
        "data__train": [{"kind": "text", "source": names[0], "target": names[1]}],
        "data__valid": {"kind": "text", "source": names[2], "target": names[3]},
        "data__test": {"one": {"kind": "text", "source": names[2], "target": names[3]}},
    }
    resumed(old, **moved)  # the same data at another path
    old.rename(new)
    run = new / "run"
    capsys.readouterr()
    assert main.run(["eval", str(run)]) == 0
    assert main.run(["train", str(run / "config.yaml"), "--run", str(run)]) == 0
    assert main.run(["shortlist", str(run)]) == 0
    assert main.run(["prune", str(run), "--heads", "50%", "-o", str(new / "small")]) == 0
    assert main.run(["shortlist", str(new / "small")]) == 0
    assert "no such file" not in capsys.readouterr().err
    resumed(new, **moved, training__max_epochs=3)
    assert run_directory.read_recipe(run).data.valid.source == str(new / names[2])
    config = (run / "config.yaml").read_text()
    assert str(old / "data") not in config
    (new / names[0]).write_text("a b c d e f\n" * 41)
    with pytest.raises(DataError, match=rf"RESUME-DATA.*{new / names[0]}: changed since"):
        resumed(new, **moved, training__max_epochs=4)
    tagged = {**moved, "data__train": [{**moved["data__train"][0], "tag": "bt"}]}
    with pytest.raises(ConfigError, match=r"config\.yaml: data\.train: "):
        resumed(new, **tagged)


def test_data_that_have_no_file_are_reported_as_in_the_recipe(text_run):
    """Such as a data set of the hub that was changed there."""
    folder = text_run
    (folder / "run" / "report.json").write_text("{}")
    (folder / "text.source").write_text("a b c d e f\n" * 40 + "g a\n")
    with pytest.raises(
        DataError, match=r"read from data.train.0 \(kind=text, source=/.*text.source"
    ):
        resumed(folder)


def test_fresh_moves_the_old_run_aside(tmp_path):
    settled, _ = recipe.load(written(tmp_path, training__max_epochs=1))
    for _ in range(2):
        loop.train(settled, tmp_path / "run", fresh=True)
    assert (tmp_path / "run.old-1" / "checkpoints").is_dir()
