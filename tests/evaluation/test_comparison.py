"""What baselines add to a score: it stays as it is, and each bucket is scored like a test set."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mt.config.schema import EvaluationConfig
from mt.evaluation.buckets import Bucket
from mt.evaluation.comparison import compare_scores
from mt.evaluation.scoring import CorpusScore, make_metrics, score_all, score_translations

REFERENCES = [f"The {word} house is on the hill." for word in ("old", "red", "new", "low")] * 3
SYSTEM = [line.replace("hill", "mountain") if i % 3 else line for i, line in enumerate(REFERENCES)]
BASELINE = [line.replace("on the hill", "there") for line in REFERENCES]
EVALUATION = EvaluationConfig(metrics=("chrf", "ter"))
BUCKETS = [Bucket("half", "first", np.arange(6)), Bucket("half", "second", np.arange(6, 12))]


@pytest.fixture(scope="module")
def result():
    metrics = make_metrics("en", EVALUATION)
    found = score_all(metrics, (), SYSTEM, [REFERENCES])
    texts = (), SYSTEM, [REFERENCES]
    return compare_scores(EVALUATION, metrics, found, texts, {"old": BASELINE}, BUCKETS)


def test_the_scores_are_those_without_a_baseline(result):
    alone = score_translations(SYSTEM, [REFERENCES], "en", EVALUATION)
    assert {n: {key: result[n][key] for key in alone[n]} for n in alone} == alone
    json.dumps(result, allow_nan=False)


def test_the_verdict_goes_by_what_is_better_for_the_metric(result):
    old = {name: value["baselines"]["old"] for name, value in result.items()}
    assert old["chrF2"]["difference"] > 0 > old["TER"]["difference"]
    assert [each["verdict"] for each in old.values()] == ["better", "better"]


def test_a_bucket_has_the_score_of_its_lines(result):
    for bucket, rows in zip(result["chrF2"]["buckets"], (slice(6), slice(6, 12)), strict=True):
        for texts, score in (
            (SYSTEM, bucket["score"]), (BASELINE, bucket["baselines"]["old"]["score"]),
        ):  # fmt: skip
            alone = score_translations(texts[rows], [REFERENCES[rows]], "en", EVALUATION)
            assert score == pytest.approx(alone["chrF2"]["score"], abs=0.006)
        other = bucket["baselines"]["old"]
        assert other["difference"] == pytest.approx(bucket["score"] - other["score"], abs=1e-5)
        assert other["interval"][0] <= other["difference"] <= other["interval"][1]
        assert bucket["lines"] == 6
        assert bucket["interval"][0] <= bucket["score"] <= bucket["interval"][1]


class Whole:
    """A metric that has no scores of lines."""

    def score(self, sources, hypotheses, references):
        return CorpusScore(1.0, "x")


def test_nothing_is_added_without_scores_of_lines():
    one = EvaluationConfig(metrics=("chrf",))
    metrics = {"chrF2": Whole()}
    found, texts = score_all(metrics, (), SYSTEM, [REFERENCES]), ((), SYSTEM, [REFERENCES])
    result = compare_scores(one, metrics, found, texts, {"old": BASELINE}, BUCKETS)
    assert result == {"chrF2": {"score": 1.0, "signature": "x"}}
