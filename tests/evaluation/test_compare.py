"""Models side by side: the same model is the same row, and sizes are those on disk."""

from __future__ import annotations

from mt.checkpoints import run_directory
from mt.decoding.types import EngineOptions
from mt.evaluation.compare import ModelRow, compare_models, format_table, weight_bytes

ONE = EngineOptions(threads=1, precision="fp32")


def test_a_model_and_itself_have_equal_scores_and_sizes(run):
    recipe = run_directory.read_recipe(run)
    first, second = compare_models({"first": run, "second": run}, recipe, ONE)
    assert first.bleu == second.bleu
    assert set(first.bleu) == set(recipe.data.test)
    assert first.bytes == second.bytes
    assert min(first.lines_per_second, second.lines_per_second) > 0
    lines = list(format_table([first, second]))
    assert [line.split()[0] for line in lines[1:]] == ["first", "second"]
    assert lines[2].split()[2] == "1.00x"


def test_the_bytes_of_a_run_are_those_of_its_weights(run, tmp_path):
    weights = run_directory.open_run(run).folder / "model.safetensors"
    assert weight_bytes(run) == weight_bytes(weights) == weights.stat().st_size
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_bytes(b"x" * 10)
    (tmp_path / "sub" / "b").write_bytes(b"x" * 5)
    assert weight_bytes(tmp_path) == 15


def test_ratios_are_to_the_first_row_and_what_is_missing_is_a_dash():
    rows = [ModelRow("a", 4_000_000, 10.0, {"x": 20.0}), ModelRow("b", 1_000_000, None, None)]
    head, first, second = (line.split() for line in format_table(rows))
    assert head == ["MB", "size", "lines/s", "speed", "BLEU", "x"]
    assert first == ["a", "4.0", "1.00x", "10.0", "1.00x", "20.00"]
    assert second == ["b", "1.0", "0.25x", "-", "-", "-"]
