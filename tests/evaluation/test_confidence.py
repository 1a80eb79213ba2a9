"""The confidence of lines is kept beside them, and compared with their chrF."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import tiny_run

from mt.decoding.quality import Calibration
from mt.decoding.translate import open_engine
from mt.decoding.types import EngineOptions, Translation
from mt.errors import DataError, ModelError
from mt.evaluation import evaluate
from mt.evaluation.confidence import describe_expected, rate_lines, rate_units, read_confidences

LINE = Calibration(80.0, 10.0, 0.7, 500)
ONE = EngineOptions(threads=1, precision="fp32")


def translation(*probabilities, text="Ein Haus", tokens=("▁Ein", "▁Ha", "us")):
    return Translation(text, tokens=tokens, log_probabilities=tuple(map(math.log, probabilities)))


def test_a_line_has_its_expected_chrf_and_the_probability_of_each_word():
    (rated,) = rate_lines(LINE, [translation(0.9, 0.2, 0.8, 0.9)])
    mean = math.prod((0.9, 0.2, 0.8, 0.9)) ** 0.25
    assert rated["expected_chrf"] == pytest.approx(10 + 80 * mean, abs=0.01)
    assert rated["words"] == [("Ein", 0.9), ("Haus", 0.4)]


def test_without_spaces_each_piece_is_a_word():
    line = translation(0.9, 0.2, 0.5, 0.9, text="你好吗。", tokens=("▁你好", "吗", "。"))
    (rated,) = rate_lines(LINE, [line])
    assert rated["words"] == [("你好", 0.9), ("吗", 0.2), ("。", 0.5)]


def test_a_unit_is_as_likely_as_the_least_likely_word_in_it():
    words = [("ab", 0.9), ("c", 0.2)]
    assert rate_units(words, "abc") == [0.9, 0.9, 0.2]
    assert rate_units(words, ["abc"]) == [0.2]
    assert rate_units(words, ["a", "bc"]) == [0.9, 0.2]
    assert rate_units(words, ["a", "bd"]) == [1.0, 1.0]
    assert rate_units([], ["a"]) == [1.0]
    assert rate_units([], []) == []


def test_words_that_are_not_those_of_the_text_have_no_probability():
    several = translation(0.9, 0.2, 0.8, 0.9, 0.5)  # the ends of two parts
    (one,) = rate_lines(LINE, [several])
    (other,) = rate_lines(LINE, [translation(0.9, 0.2, 0.8, 0.9, text="Ein Hau")])
    assert one["words"] == other["words"] == []


def test_without_calibration_or_probabilities_there_is_none():
    sure = translation(0.9, 0.2, 0.8, 0.9)
    assert rate_lines(None, [sure]) is None
    assert rate_lines(LINE, [sure, replace(sure, log_probabilities=())]) is None
    assert rate_lines(LINE, [Translation("")]) == [{"expected_chrf": 0.0, "words": []}]


def lines(*values):
    return [{"expected_chrf": value, "words": []} for value in values]


def test_the_correlation_is_that_of_expected_chrf_and_chrf():
    chrf = [100.0, 40.0, 0.0]
    figures = describe_expected(lines(90.0, 50.0, 20.0), chrf)
    assert figures["correlation"] == pytest.approx(
        np.corrcoef([90.0, 50.0, 20.0], chrf)[0, 1], abs=1e-4
    )
    assert figures["mean"] == pytest.approx(160 / 3, abs=0.01)
    assert figures["share_above"] == pytest.approx(1 / 3, abs=1e-4)  # 50 is not above 50
    assert describe_expected(lines(7.0, 7.0, 7.0), chrf)["correlation"] is None
    assert describe_expected(lines(7.0), chrf[:1])["correlation"] is None


@pytest.fixture
def sure(tmp_path):
    return tiny_run.make(tmp_path, quality=asdict(LINE))


def test_an_evaluation_keeps_a_line_for_each_translation(sure):
    engine = open_engine(sure, ONE)
    found = evaluate.evaluate(sure, engine, ["test_one"])["test_one"].expected
    path = evaluate.confidence_path(sure, "test_one")
    kept = read_confidences(path, len(tiny_run.SOURCES), "")
    expected = [round(LINE.expected_chrf(each), 2) for each in engine.translate(tiny_run.SOURCES)]
    assert [line["expected_chrf"] for line in kept] == expected
    assert found["mean"] == pytest.approx(np.mean(expected), abs=0.01)
    assert found["lines"] == len(expected)


def test_that_of_earlier_translations_goes_with_them(sure, tmp_path):
    path = evaluate.confidence_path(sure, "test_one")
    evaluate.evaluate(sure, open_engine(sure, ONE), ["test_one"])
    assert path.is_file()
    (tmp_path / "unsure").mkdir()
    other = tiny_run.make(tmp_path / "unsure")
    path = evaluate.confidence_path(other, "test_one")
    path.parent.mkdir()
    path.write_text("{}")
    found = evaluate.evaluate(other, open_engine(other, ONE), ["test_one"])
    assert (path.exists(), found["test_one"].expected) == (False, None)


def test_a_file_that_is_damaged_or_of_other_lines_is_refused(tmp_path):
    path = tmp_path / "x.confidence.jsonl"
    assert read_confidences(path, 1, "") is None
    path.write_text('{"expected_chrf": 50.0}\n')
    assert read_confidences(path, 1, "") == [{"expected_chrf": 50.0, "words": []}]
    with pytest.raises(DataError, match="1 lines, there are 2"):
        read_confidences(path, 2, "translate it again")
    path.write_text('{"expected_chrf": "x"}\n')
    with pytest.raises(ModelError, match=r"jsonl:1: damaged \(expected_chrf"):
        read_confidences(path, 1, "")
    path.write_text('{"words": [1.0]}\n')
    with pytest.raises(ModelError, match="expected_chrf"):
        read_confidences(path, 1, "")
