"""`mt eval`: a table, or one JSON object with signatures."""

from __future__ import annotations

import json
import shutil

import pytest
import tiny_run
from metric_programs import log_of, section


@pytest.fixture
def own_run(run, tmp_path):
    """A run of its own, since translations are kept in it."""
    shutil.copytree(run.parent, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy" / "run"


def test_json_has_each_test_set_with_scores_and_signatures(own_run, mt):
    done = mt("eval", own_run, "--json")
    assert done.code == 0
    scores = json.loads(done.out)
    assert set(scores) == {"test_one", "test_two"}
    for metrics in scores.values():
        assert {"BLEU", "chrF2", "TER"} <= set(metrics)
        assert all("version:" in metric["signature"] for metric in metrics.values())


def test_the_table_has_the_scores_of_the_json(own_run, mt):
    scores = json.loads(mt("eval", own_run, "--on", "test_one", "--json").out)["test_one"]
    head, *lines = mt("eval", own_run, "--on", "test_one").out.splitlines()
    assert head.split() == ["test", "set", "metric", "score", "signature"]
    assert [line.split()[:3] for line in lines] == [
        ["test_one", name, "undefined" if "undefined" in value else f"{value['score']:.2f}"]
        for name, value in scores.items()
    ]


def test_an_unknown_test_set_is_refused_by_name(own_run, mt):
    done = mt("eval", own_run, "--on", "test_on")
    assert (done.code, done.out) == (2, "")
    assert "test_on" in done.err


def test_a_baseline_adds_tests_and_buckets_and_changes_no_exit_code(own_run, mt, tmp_path):
    worse = tmp_path / "worse.de"
    worse.write_text("x\n" * 7, encoding="utf-8")
    command = ("eval", own_run, "--on", "test_one", "--metric", "chrf", "--baseline", worse)
    plain, done = mt(*command), mt(*command, "--json")
    assert (plain.code, done.code) == (0, 0)
    value = json.loads(done.out)["test_one"]["chrF2"]
    assert value["baselines"][str(worse)]["score"] == 0
    assert [bucket["lines"] for bucket in value["buckets"]] == [7, 7]
    _, tests, buckets = plain.out.split("\n\n")
    assert str(worse) in tests.splitlines()[1]
    assert len(buckets.splitlines()) == 3


def test_a_score_below_its_limit_is_printed_and_ends_with_3(own_run, mt):
    command = ("eval", own_run, "--on", "test_one", "--metric", "chrf", "--json")
    assert mt(*command, "--fail-below", "chrf=0").code == 0
    done = mt(*command, "--fail-below", "chrf=99")
    assert done.code == 3
    assert "chrF2" in json.loads(done.out)["test_one"]
    assert "mt: error[SCORE-LIMIT] test_one: chrF2 is" in done.err
    assert mt(*command, "--fail-below", "bleu=1").code == 2


def test_a_run_starts_no_program_that_its_user_has_not_named(own_run, mt, tmp_path):
    given = json.dumps(section(tmp_path))
    config = own_run / "config.yaml"
    text, plain = config.read_text(encoding="utf-8"), "metrics:\n  - bleu\n  - chrf\n  - ter\n"
    assert plain in text
    config.write_text(text.replace(plain, f"metrics: [{given}]\n"), encoding="utf-8")
    command = ("eval", own_run, "--on", "test_one", "--json")
    done = mt(*command)
    assert (done.code, done.out, log_of(tmp_path)) == (4, "", [])
    assert "mt: error[MODEL-TRUST] evaluation.metrics: fake: its recipe names a program" in done.err
    assert mt(*command, "--metric", "chrf").code == 0
    assert log_of(tmp_path) == []
    for trusted in (["--trust"], ["--metric", given]):
        done = mt(*command, *trusted)
        assert list(json.loads(done.out)["test_one"]) == ["fake"]
    assert log_of(tmp_path).count("started") == 2


def test_a_calibrated_run_shows_how_well_its_expected_chrf_fits(mt, tmp_path):
    line = {"slope": 80.0, "intercept": 10.0, "correlation": 0.7, "pairs": 500}
    command = ("eval", tiny_run.make(tmp_path, quality=line), "--on", "test_one")
    plain, done = mt(*command), mt(*command, "--json")
    figures = json.loads(done.out)["test_one"]["expected_chrf"]
    assert (figures["lines"], figures["threshold"]) == (7, 50)
    scores, expected = plain.out.split("\n\n")
    assert "expected_chrf" not in scores
    assert expected.splitlines()[0].split()[-2:] == ["above", "50"]
    assert f"{figures['mean']:.2f}" in expected.splitlines()[1]
