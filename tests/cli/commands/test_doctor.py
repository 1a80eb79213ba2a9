"""`mt doctor`."""

import json

import sound_recipe
import tiny_run
from evaluated_runs import VALIDATIONS

from mt.cli import main


def test_it_shows_facts_and_fails_by_what_a_recipe_lacks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sound_recipe.write({**sound_recipe.DATA, "recipe.yaml": sound_recipe.RECIPE})
    assert main.run(["doctor"]) == 0
    assert capsys.readouterr().out.startswith("mt ")
    assert main.run(["doctor", "recipe.yaml"]) == 0
    assert "nothing is missing" in capsys.readouterr().out
    (tmp_path / "train.en").unlink()
    (tmp_path / "train.de").unlink()
    assert main.run(["doctor", "recipe.yaml"]) == 3
    out, err = capsys.readouterr()
    assert err.count("DATA-FILE") == 2
    assert "nothing is missing" not in out


def test_a_run_is_diagnosed_and_compared(tmp_path, capsys):
    run = tiny_run.make(tmp_path)
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(v)}\n" for v in VALIDATIONS))
    assert main.run(["doctor", str(run)]) == 0
    assert capsys.readouterr().out == f"{run}: nothing that looks wrong\n"  # of unknown pairs
    (run / "report.json").write_text(json.dumps({"corpora": {"train.0": {"kept": 5000}}}))
    assert main.run(["doctor", str(run)]) == 0
    _, compared = capsys.readouterr().out.splitlines()
    assert compared.startswith("validation BLEU 27.0, chrF 23.0; runs of mt on 5,000 pairs of")
