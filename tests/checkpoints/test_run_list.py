"""Runs in a list, and what differs between two."""

import json
import shutil

import pytest
import tiny_run

from mt.checkpoints.run_directory import open_run
from mt.checkpoints.run_list import compare_runs, format_runs, list_runs
from mt.cli import main
from mt.errors import ModelError


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    for number, name in enumerate(("one", "two")):
        made = tmp_path / name
        made.mkdir()
        shutil.move(tiny_run.make(made, seed=number), folder / name)
    return folder


def test_runs_are_listed_by_name_with_their_state(runs):
    (runs / "begun" / "checkpoints").mkdir(parents=True)
    (runs / "begun" / "config.yaml").write_text("")
    (runs / "no_run").mkdir()
    facts = list_runs(runs)
    assert [one.name for one in facts] == ["begun", "one", "two"]
    assert facts[0].status == "no checkpoint yet"
    assert (facts[1].step, facts[1].direction, facts[1].status) == (7, "en-de", "unfinished")
    assert [len(row) for row in format_runs(facts)] == [7] * 4


def test_a_run_alone_is_a_list_of_one(runs):
    assert [one.name for one in list_runs(runs / "one")] == ["one"]


def test_a_damaged_run_is_listed_with_what_is_wrong(runs):
    (runs / "one" / "config.yaml").write_text("model: [")
    facts = list_runs(runs)
    assert facts[0].step == 0
    assert "config.yaml" in facts[0].status
    assert facts[1].step == 7


def test_a_folder_without_runs_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="RUN-NONE"):
        list_runs(tmp_path)
    with pytest.raises(ModelError, match="RUN-NONE"):
        list_runs(tmp_path / "nothing")


def test_equal_runs_do_not_differ_and_others_name_their_keys_and_files(runs):
    one, two = runs / "one", runs / "two"
    shutil.copy(one / "config.yaml", two / "config.yaml")
    assert list(compare_runs(open_run(one), open_run(two))) == []
    text = (two / "config.yaml").read_text()
    (two / "config.yaml").write_text(text.replace("max_length: 40", "max_length: 50"))
    report = {"corpora": {"train.0": {"files": {"source": {"path": "a", "sha256": "1" * 64}}}}}
    (one / "report.json").write_text(json.dumps(report))
    (two / "report.json").write_text(json.dumps(report).replace("1" * 64, "2" * 64))
    assert list(compare_runs(open_run(one), open_run(two))) == [
        "data.max_length: 40 -> 50", f"train.0, source: sha256 {'1' * 16} -> {'2' * 16}"
    ]  # fmt: skip


def test_the_commands_list_and_compare(runs, capsys, monkeypatch):
    monkeypatch.chdir(runs.parent)
    assert main.run(["runs"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["one", "en-de", "7"]
    assert main.run(["diff", "runs/one", "runs/one"]) == 0
    assert "equal" in capsys.readouterr().out
    assert main.run(["diff", "runs/one", "runs/two"]) == 8  # their files lie elsewhere
    assert "data.train" in capsys.readouterr().out
    assert main.run(["diff", "runs/one", "runs/none"]) == 4
