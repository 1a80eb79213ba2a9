"""The expected chrF is a line fitted by least squares, within 0 and 100."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import tiny_run

from mt.cli import main
from mt.decoding.output_formats import make_formatter
from mt.decoding.quality import (
    FEWEST_PAIRS,
    Calibration,
    as_values,
    confidence,
    find_calibration,
    fit,
    read_calibration,
)
from mt.decoding.types import Translation
from mt.errors import ConfigError, ModelError

LINE = Calibration(80.0, 10.0, 0.7, 500)


def translation(probability, text="Ein Haus."):
    return Translation(text, log_probabilities=(math.log(probability),) * 3)


def test_confidence_is_the_geometric_mean_of_the_probabilities():
    assert confidence([math.log(0.2), math.log(0.8)]) == pytest.approx(0.4)
    assert confidence([]) == 0.0


def test_the_line_is_that_of_least_squares():
    draw = np.random.default_rng(1)
    x = draw.random(200)
    y = 20 + 60 * x + draw.normal(0, 5, 200)
    line = fit(x.tolist(), y.tolist())
    slope, intercept = np.polyfit(x, y, 1)
    assert line == Calibration(
        pytest.approx(slope), pytest.approx(intercept), pytest.approx(np.corrcoef(x, y)[0, 1]), 200
    )


def test_too_few_pairs_or_equal_ones_have_no_line():
    assert fit([0.1] * 5, [1.0] * 5) is None
    assert fit([0.5] * FEWEST_PAIRS, range(FEWEST_PAIRS)) is None
    assert fit(np.arange(FEWEST_PAIRS) / 100, [7.0] * FEWEST_PAIRS) is None
    assert as_values(None) is None


def test_the_expected_chrf_is_on_the_line_and_within_bounds():
    assert LINE.expected_chrf(translation(0.5)) == pytest.approx(50)
    assert Calibration(200, 0, 1, 99).expected_chrf(translation(0.9)) == 100
    assert Calibration(200, -190, 1, 99).expected_chrf(translation(0.5)) == 0
    assert LINE.expected_chrf(translation(0.9, " ")) == 0


def test_formats_show_it():
    one = translation(0.5)
    assert make_formatter("text", quality=LINE)(0, "x", one) == "50.0\tEin Haus."
    assert json.loads(make_formatter("json", quality=LINE)(0, "x", one))["expected_chrf"] == 50
    assert "expected_chrf" not in make_formatter("json")(0, "x", one)
    with pytest.raises(ConfigError, match="Moses"):
        make_formatter("moses", quality=LINE)


def test_a_run_keeps_it_and_translates_with_it(tmp_path, capsys):
    run = tiny_run.make(tmp_path)
    with pytest.raises(ModelError, match="QUALITY-NONE"):
        read_calibration(run, None)
    assert find_calibration(run, None) is None
    assert find_calibration(tmp_path, None) is None  # such as an exported folder
    (tmp_path / "sure").mkdir()
    run = tiny_run.make(tmp_path / "sure", quality=asdict(LINE))
    assert read_calibration(run, None) == find_calibration(run, None) == LINE
    (tmp_path / "in.txt").write_text("A man sleeps.\n\nGirls sing.\n")
    assert main.run(["translate", str(run), "--quality", "-i", str(tmp_path / "in.txt")]) == 0
    first, blank, last = capsys.readouterr().out.split("\n")[:3]
    assert blank == "0.0\t"
    assert all(10 <= float(line.split("\t")[0]) <= 100 for line in (first, last))
