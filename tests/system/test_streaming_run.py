"""A streaming run that was stopped anywhere and resumed ends with the bits of one that was not."""

from __future__ import annotations

import json

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from resumable_run import RECIPE, bits
from test_resume import command, run_to_the_end

from mt.checkpoints import checkpoint, run_directory
from mt.config import recipe
from mt.config.schema import Languages
from mt.data.sources import demo
from mt.errors import DataError
from mt.training import loop

SHARDS = 3


@pytest.fixture(scope="module")
def rows():
    settings = demo.Config(size=480, languages=Languages(source="en", target="de"))
    return [{"en": pair.source, "de": pair.target} for pair in demo.read(settings)]


@pytest.fixture(scope="module", autouse=True)
def _one_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def made(folder, rows, kind):
    """A recipe that streams the rows from shards of a kind."""
    for k in range(SHARDS):
        shard = rows[160 * k : 160 * (k + 1)]
        if kind == "parquet":
            table = pyarrow.Table.from_pylist(shard)
            pyarrow.parquet.write_table(table, folder / f"{k}.parquet", row_group_size=50)
        else:
            (folder / f"{k}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shard))
    values = json.loads(json.dumps(RECIPE))
    names = [f"{k}.{kind}" for k in range(SHARDS)]
    values["data"] |= {"train": [{"kind": "huggingface", "files": names}], "streaming": True}
    values["batching"] = {"tokens": 500, "micro_tokens": 400, "window": 4}
    values["vocabulary"]["sample"] = 200
    values["training"] |= {"max_epochs": 2, "max_steps": 400}  # it is the epochs that end it
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module", params=["jsonl", "parquet"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def whole(kind, rows, tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp(kind)
    loop.train(recipe.load(made(folder, rows, kind))[0], folder / "run")
    return folder / "run"


def test_the_run_has_windows_and_epochs(whole):
    """Else the tests below would prove little."""
    folders = sorted((whole / "checkpoints").glob("step-*"))
    states = [checkpoint.read_state(folder) for folder in folders]
    assert max(state.stream["ranks"][0]["window"] for state in states) == 1
    assert (states[-1].epoch, states[-1].update) == (2, 0)
    assert states[-1].step >= 30
    told = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert told[-1]["pairs_read"] > told[-1]["pairs_dropped"] > 0


@pytest.mark.parametrize("stops", [
    [1, 7, 18], [9, 10, 11, 12], [16, 17, 20, 21, 30],
    *(pytest.param(stops, marks=pytest.mark.slow)
      for stops in ([1], [7], [16, 17, 18], [20, 21, 30])),
], ids=str)  # fmt: skip
def test_stop_and_resume_equals_uninterrupted(whole, kind, rows, tmp_path, monkeypatch, stops):
    run_to_the_end(made(tmp_path, rows, kind), tmp_path / "run", stops, monkeypatch)
    assert bits(tmp_path / "run") == bits(whole)


def test_a_stream_with_subword_regularization_resumes(rows, tmp_path, monkeypatch):
    ends = []
    for name, stops in (("a", []), ("b", [7, 20])):
        (tmp_path / name).mkdir()
        path = made(tmp_path / name, rows, "jsonl")
        values = yaml.safe_load(path.read_text())
        values["vocabulary"]["sampling"] = {"target": {"dropout": 0.3}}
        path.write_text(yaml.safe_dump(values))
        run_to_the_end(path, tmp_path / name / "run", stops, monkeypatch)
        ends.append(bits(tmp_path / name / "run"))
    assert ends[0] == ends[1]


def test_a_killed_run_resumes(whole, kind, rows, tmp_path, python):
    path = made(tmp_path, rows, kind)
    assert command(python, path, tmp_path / "run", "rename:4:kill").returncode == -9
    assert command(python, path, tmp_path / "run").returncode == 0
    assert bits(tmp_path / "run") == bits(whole)


def test_a_shard_lost_on_the_way_ends_the_run_and_its_return_resumes_it(
    whole, kind, rows, tmp_path, monkeypatch
):
    settled, _ = recipe.load(made(tmp_path, rows, kind))
    real, kept = loop.train_update, {}

    def update(session, micros, state, after):
        state = real(session, micros, state, after)
        if state.step == 6:
            for k in range(SHARDS):
                path = tmp_path / f"{k}.{kind}"
                kept[path] = path.read_bytes()
                path.unlink()
        return state

    monkeypatch.setattr(loop, "train_update", update)
    with pytest.raises(DataError, match=r"cannot be read|no such file") as error:
        loop.train(settled, tmp_path / "run")
    assert error.value.exit_code == 3
    last = run_directory.latest_sound_checkpoint(tmp_path / "run", print)
    assert last is not None
    for path, content in kept.items():
        path.write_bytes(content)
    monkeypatch.setattr(loop, "train_update", real)
    loop.train(settled, tmp_path / "run")
    assert bits(tmp_path / "run") == bits(whole)
