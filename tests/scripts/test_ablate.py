"""The table of variants: every row is trained, nothing is trained twice, a changed row is."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from script_module import load_script

RECIPE = """
languages: {source: en, target: de}
data:
  train: [{kind: demo, size: 60}]
  valid: {kind: demo, size: 8, split: valid}
  test: {small: {kind: demo, size: 6, split: test}}
vocabulary: {size: 400}
model: {kind: transformer, d_model: 16, n_heads: 2, d_ff: 16, encoder_layers: 1, decoder_layers: 1}
schedule: {warmup_steps: 2}
training: {max_steps: 4, validate_every: 2, save_every: 2, report_every: 2}
search: {kind: greedy, max_length_ratio: 1.0, max_length_extra: 2}
"""


@pytest.fixture(scope="module")
def ablate():
    return load_script("ablate")


def test_rows_are_trained_once_and_a_failure_stops_no_other(ablate, tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    grid, runs = tmp_path / "grid.yaml", tmp_path / "runs"
    call = [str(tmp_path / "tiny.yaml"), "--grid", str(grid), "--to", str(runs), "--threads", "1"]
    grid.write_text("rows: {bad: {model.d_ff: wide}, good one: {}}")
    assert ablate.main(call) == 1
    out, err = capsys.readouterr()
    assert (runs / "table.md").read_text() == out
    assert [line.split(" | ")[0] for line in out.splitlines()[2:]] == ["| good one"]
    assert "test" not in out
    assert "bad.seed1: mt train ended with 2" in err
    assert "d_ff" in (runs / "bad.seed1.log").read_text()
    before = (runs / "good-one.seed1" / "metrics.jsonl").stat().st_mtime_ns

    # the row that was changed is trained, the finished one only scored on the test set
    grid.write_text("rows: {bad: {model.d_ff: 48}, good one: {}}")
    assert ablate.main([*call, "--test", "small"]) == 0
    assert "small chrF2" in capsys.readouterr().out
    assert (runs / "good-one.seed1" / "metrics.jsonl").stat().st_mtime_ns == before
    recipe = yaml.safe_load((runs / "bad.seed1" / "config.yaml").read_text())
    assert (recipe["model"]["d_ff"], recipe["training"]["seed"]) == (48, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM ends a process at once there")
def test_a_signal_ends_the_trainings_too(tmp_path):
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace("max_steps: 4", "max_steps: 500"))
    (tmp_path / "grid.yaml").write_text("rows: {one: {}, two: {}}")
    script = Path(__file__).parents[2] / "scripts" / "ablate.py"
    command = [sys.executable, script, "tiny.yaml", "--grid", "grid.yaml", "--to", "runs"]
    log = tmp_path / "runs" / "one.seed1.log"
    with subprocess.Popen(
        [*map(str, command), "--threads", "1"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and not (log.exists() and "step 2/" in log.read_text()):
            time.sleep(0.05)
        process.terminate()
        error = process.communicate(timeout=60)[1]
    assert "one.seed1: mt train ended with" in error
    assert "two.seed1: not begun" in error
    assert process.returncode == 1
    assert "stopped by SIGTERM at step" in log.read_text()


def test_seeds_of_a_row_are_averaged(ablate):
    rows = [("a", 10.0), ("b", 12.0), ("a", 14.0)]
    records = [
        {"row": row, "valid": {"BLEU": bleu, "chrF2": 50}, "steps": 900, "minutes": 2.4}
        for row, bleu in rows
    ]
    lines = ablate.make_table(records, []).splitlines()
    assert lines[0] == "| row | valid BLEU | valid chrF2 | updates | minutes | seeds |"
    assert lines[2] == "| a | 12.00 ± 2.83 | 50.00 ± 0.00 | 900 | 2 | 2 |"
    assert lines[3] == "| b | 12.00 | 50.00 | 900 | 2 | 1 |"


def test_each_row_has_a_result_before_any_has_two(ablate, tmp_path):
    (tmp_path / "grid.yaml").write_text(
        "{seeds: [3, 4], common: {model.dropout: 1e-1}, rows: {a: {}, b: {model.dropout: 3e-1}}}"
    )
    trials = ablate.read_grid(tmp_path / "grid.yaml", tmp_path)
    assert [trial.run.name for trial in trials] == ["a.seed3", "b.seed3", "a.seed4", "b.seed4"]
    assert [trial.settings["model.dropout"] for trial in trials] == [0.1, 0.3, 0.1, 0.3]


@pytest.mark.parametrize(
    "text", ["", "rows: [a]", "{rows: {a: {}}, seed: 1}", "rows: {'a b': {}, a-b: {}}", "rows: {"]
)
def test_a_grid_that_cannot_be_meant_is_refused(ablate, tmp_path, text):
    grid = tmp_path / "grid.yaml"
    grid.write_text(text)
    with pytest.raises(SystemExit, match=re.escape(str(grid))):
        ablate.read_grid(grid, tmp_path)
