"""The tables have what the JSON has."""

from __future__ import annotations

from mt.evaluation.result_table import format_score, format_scores

PLAIN = {"score": 30.0, "signature": "s"}
BUCKET = {
    "by": "source words", "bucket": "1-10", "lines": 7, "score": 28.0, "interval": (27.0, 29.0),
    "baselines": {"old": {"score": 27.0, "difference": 1.0, "interval": (-0.5, 2.5)}},
}  # fmt: skip
COMPARED = {
    **PLAIN, "mean": 30.0, "spread": 1.0, "buckets": [BUCKET],
    "baselines": {"old": {
        "score": 28.5, "difference": 1.5, "interval": (0.25, 2.75), "p_randomisation": 0.012,
        "p_bootstrap": 0.0123, "verdict": "better", "tests": "x",
    }},
}  # fmt: skip


def test_scores_alone_are_one_table():
    lines = format_scores({"test": {"BLEU": PLAIN, "X": {**PLAIN, "undefined": "why"}}})
    assert [line.split() for line in lines] == [
        ["test", "set", "metric", "score", "signature"], ["test", "BLEU", "30.00", "s"],
        ["test", "X", "undefined", "s"],
    ]  # fmt: skip


def test_baselines_and_buckets_are_tables_of_their_own():
    _, tests, buckets = "\n".join(format_scores({"test": {"BLEU": COMPARED}})).split("\n\n")
    expected = "test BLEU old 28.50 +1.50 +0.25 to +2.75 0.0120 0.0123 better"
    assert " ".join(tests.splitlines()[1].split()) == expected
    expected = "test BLEU source words 1-10 7 28.00 27.00 to 29.00 +1.00 -0.50 to +2.50"
    assert " ".join(buckets.splitlines()[1].split()) == expected


def test_the_expected_chrf_is_a_table_with_its_threshold():
    figures = {
        "lines": 1200, "mean": 61.5, "correlation": 0.625, "threshold": 50.0, "share_above": 0.75,
    }  # fmt: skip
    table = {"news": figures, "x": {**figures, "correlation": None}}
    _, expected = "\n".join(format_scores({"news": {"BLEU": PLAIN}}, table)).split("\n\n")
    head, news, other = expected.splitlines()
    assert head.split("  ")[-1].strip() == "above 50"
    assert news.split() == ["news", "1,200", "61.50", "0.62", "75.0%", "of", "lines"]
    assert other.split()[3] == "undefined"


def test_what_is_undefined_is_so_called():
    other = {**COMPARED["baselines"]["old"], "difference": None, "interval": (None, None)}
    lines = format_scores({"test": {"BLEU": {**COMPARED, "baselines": {"old": other}}}})
    assert lines[4].split()[3:6] == ["28.50", "undefined", "undefined"]


def test_a_score_that_two_digits_do_not_hold_has_four():
    assert [format_score(score) for score in (31.25, 30.0, 0.8312)] == ["31.25", "30.00", "0.8312"]
