"""A report counts what the kept translations have, of one run or of two."""

import pytest
from evaluated_runs import ROWS, VALIDATIONS, evaluated

from mt.errors import ConfigError, DataError
from mt.report import run_report
from mt.report.run_report import describe_run

WORSE = [
    (*ROWS[0][:2], "Ein Mann schläft."),
    *((a, b, "Ja Ja Ja Ja Ja Ja") for a, b, _ in ROWS[1:]),
]


def test_a_run_alone(tmp_path):
    report = describe_run(evaluated(tmp_path / "one"), None)
    test = report["tests"]["test_one"]
    assert list(report["tests"]) == ["test_one"]  # the other has no translations
    assert test["scores"]["BLEU"]["score"] == 100
    assert test["lines"] == len(test["sentences"]) == len(ROWS)
    assert test["errors"] == {}
    assert test["ngrams"] is None
    assert report["curves"][0]["valid_bleu"] == [[v["step"], v["valid_bleu"]] for v in VALIDATIONS]
    assert sum(bucket["lines"] for bucket in test["buckets"]) == len(ROWS)
    assert report["runs"][0]["step"] == 7


def test_two_runs_are_compared_line_by_line(tmp_path):
    one, two = evaluated(tmp_path / "one"), evaluated(tmp_path / "two", WORSE)
    report = describe_run(one, two)
    test = report["tests"]["test_one"]
    tested = test["scores"]["BLEU"]["baselines"]["against"]
    assert test["scores"]["BLEU"]["score"] > tested["score"]
    assert tested["verdict"] == "better"
    assert test["errors"]["repetition"] == [[], list(range(1, len(ROWS)))]
    assert test["sentences"][0]["outputs"] == [ROWS[0][2], WORSE[0][2]]
    assert test["sentences"][0]["chrf"][0] == 100 > test["sentences"][0]["chrf"][1]
    assert test["ngrams"]["lost"] == []
    assert any("train" in line for line in report["differences"])  # their files lie elsewhere
    lost = describe_run(two, one)["tests"]["test_one"]["ngrams"]["lost"]
    assert ("im", 1) not in lost  # once is chance


def test_only_some_of_many_lines_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(run_report, "MOST_LINES", 30)
    rows = ROWS * 40 + [("A man sleeps.", "Ein Mann schläft.", "Nein")]
    test = describe_run(evaluated(tmp_path / "one", rows), None)["tests"]["test_one"]
    assert len(test["sentences"]) <= 40
    assert test["sentences"][-1]["line"] == len(rows)  # the worst
    assert test["lines"] == len(rows)


def test_control_characters_never_reach_the_report(tmp_path):
    rows = [("a\x1b[31mb", "c", "d\x1b]0;x\x07"), *ROWS[1:]]
    report = describe_run(evaluated(tmp_path / "one", rows), None)
    assert "\x1b" not in str(report)


def test_without_translations_the_error_says_what_to_do(tmp_path):
    run = evaluated(tmp_path / "one", name="other")
    with pytest.raises(ConfigError, match="mt eval"):
        describe_run(run, None)


def test_other_text_is_not_compared(tmp_path):
    one = evaluated(tmp_path / "one")
    with pytest.raises(DataError, match="of other source"):
        describe_run(one, evaluated(tmp_path / "two", ROWS[::-1]))
    (one / "hypotheses" / "test_one.txt").write_text("x\n")
    with pytest.raises(DataError, match="differ in length"):
        describe_run(one, None)


def test_the_expected_chrf_is_in_bins_and_beside_each_line(tmp_path):
    expected = [95.0, 91.0, 100.0, 12.0, 35.0, 39.9, 60.0]
    run = evaluated(tmp_path / "one", expected=expected, samples=(5, 10))
    other = evaluated(tmp_path / "two")
    report = describe_run(run, other)
    test = report["tests"]["test_one"]
    mine, none = test["expected_chrf"]
    assert none is None
    assert (mine["threshold"], mine["lines"]) == (50, len(ROWS))
    assert mine["share_above"] == pytest.approx(4 / 7, abs=1e-4)
    assert [(each["from"], each["lines"]) for each in mine["bins"]] == [
        (10, 1), (30, 2), (60, 1), (90, 3),
    ]  # fmt: skip
    assert mine["bins"][1]["expected"] == pytest.approx(37.5, abs=0.1)
    assert mine["bins"][1]["chrf"] == 100
    assert [line["sure"][0]["expected_chrf"] for line in test["sentences"]] == expected
    assert all(line["sure"][1] is None for line in test["sentences"])
    steps = [[one["outputs"][-1]["step"] for one in each] for each in report["samples"]]
    assert steps == [[10, 10], []]


def test_a_calibration_of_other_lines_is_refused(tmp_path):
    run = evaluated(tmp_path / "one", expected=[50.0] * len(ROWS))
    path = run / "hypotheses" / "test_one.confidence.jsonl"
    path.write_text(path.read_text().split("\n")[0] + "\n")
    with pytest.raises(DataError, match="1 lines, there are 7 translations"):
        describe_run(run, None)


def test_some_lines_have_a_map_of_the_attention(tmp_path, monkeypatch):
    monkeypatch.setattr(run_report, "MOST_MAPS", 4)
    rows = [*ROWS[:5], (ROWS[5][0], ROWS[5][1], "Nein"), (*ROWS[6][:2], "")]
    run = evaluated(tmp_path / "one", rows)
    shown = describe_run(run, None)["tests"]["test_one"]["sentences"]
    assert 2 <= sum(line["attention"] is not None for line in shown) <= 4
    assert shown[5]["attention"] is not None  # the second worst; the worst is blank
    shown = describe_run(run, None, attention=False)["tests"]["test_one"]["sentences"]
    assert not any(line["attention"] for line in shown)
