"""`mt score`."""

from __future__ import annotations

import json
import math

import pytest
import tiny_run


class TestScore:
    @pytest.fixture
    def pair(self, run):
        folder = run.parent
        return ("--source", folder / "train.en", "--target", folder / "train.de")

    def test_a_number_a_line_and_a_summary(self, run, mt, pair):
        done = mt("score", run, *pair)
        scores = [float(line) for line in done.out.splitlines()]
        assert len(scores) == len(tiny_run.SOURCES)
        values = [
            json.loads(row) for row in mt("score", run, *pair, "--format", "json").out.splitlines()
        ]
        assert [value["score"] for value in values] == scores
        assert [value["target"] for value in values] == tiny_run.TARGETS
        for value in values:
            assert sum(value["log_probabilities"]) == pytest.approx(value["score"], abs=1e-4)
            assert len(value["tokens"]) == len(value["log_probabilities"])
            assert value["tokens"][-1] == "</s>"
        tokens = sum(len(value["tokens"]) for value in values)
        perplexity = math.exp(-sum(scores) / tokens)
        assert f"7 pairs, {tokens} tokens" in done.err
        assert done.err.endswith(f"perplexity {perplexity:.3f}\n")
        means = [float(x) for x in mt("score", run, *pair, "--normalize").out.split()]
        lengths = [len(value["tokens"]) for value in values]
        assert means == pytest.approx(
            [s / n for s, n in zip(scores, lengths, strict=True)], abs=1e-5
        )

    def test_unequal_files_are_reported_before_anything_is_scored(self, run, mt, tmp_path):
        (tmp_path / "a").write_text("x\ny\nz\n", encoding="utf-8")
        (tmp_path / "b").write_text("x\ny", encoding="utf-8")
        done = mt("score", run, "--source", tmp_path / "a", "--target", tmp_path / "b")
        assert (done.code, done.out) == (3, "")
        assert f"{tmp_path / 'a'} and {tmp_path / 'b'}: 3 lines against 2" in done.err

    def test_a_long_line_is_cut_with_a_warning_or_refused(self, run, mt, tmp_path):
        (tmp_path / "a").write_text("Dogs.\n" + "dogs play " * 40 + "\n", encoding="utf-8")
        asked = ("--source", tmp_path / "a", "--target", tmp_path / "a")
        done = mt("score", run, *asked)
        assert (done.code, done.out.count("\n")) == (0, 2)
        assert "LINE-LONG" in done.err
        done = mt("score", run, *asked, "--strict")
        assert done.code == 3
        assert "line 2: " in done.err

    def test_a_search_setting_is_refused(self, run, mt, pair):
        done = mt("score", run, *pair, "--set", "search.beams=2")
        assert done.code == 2
        assert "only runtime.* can be set here" in done.err
