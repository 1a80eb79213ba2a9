"""`mt train --dry-run`; what a training itself does is tested in tests/training."""

import json

import pytest
import sound_recipe

from mt.cli import main
from mt.training import dry_run


@pytest.fixture(autouse=True)
def _recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dry_run, "SECONDS", 0.05)
    sound_recipe.write({**sound_recipe.DATA, "recipe.yaml": sound_recipe.RECIPE})


def test_a_dry_run_prints_a_table_or_json_and_makes_no_run(tmp_path, capsys):
    assert main.run(["train", "recipe.yaml", "--dry-run"]) == 0
    table = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    names = (
        "device", "pairs", "longest pair", "vocabulary", "parameters", "micro-batch", "padding",
        "updates", "epochs", "update", "validations", "saves", "time", "weights", "gradients",
        "optimizer", "activations", "memory", "checkpoint", "disk",
    )  # fmt: skip
    assert tuple(table) == names
    assert table["updates"].split() == ["2"]
    assert main.run(["train", "recipe.yaml", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["updates"] == 2
    assert f"{told['parameters']:,}" == table["parameters"].strip()
    assert not (tmp_path / "runs").exists()


def test_options_that_a_dry_run_does_not_have(capsys):
    for wrong in (["--json"], ["--dry-run", "--fresh"], ["--dry-run", "--trace"]):
        assert main.run(["train", "recipe.yaml", *wrong]) == 2
        assert capsys.readouterr().err.startswith(f"mt: error[USAGE] {wrong[-1]}: ")
