"""What `mt eval --baseline` adds to the scores: tests against baselines, and buckets of lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from mt.config.schema import EvaluationConfig
from mt.evaluation import significance
from mt.evaluation.buckets import Bucket
from mt.evaluation.scoring import (
    CorpusScore,
    Metric,
    MetricScore,
    Scores,
    as_result,
    score_all,
)
from mt.evaluation.significance import Comparison, Interval, Statistics, Texts, collect_statistics

Limits = tuple[float | None, float | None]
"""Between which 95 % of the resampled values are; None: undefined."""


class TestedBaseline(TypedDict):
    """A baseline, and how much better or worse the system is."""

    score: float | None
    difference: float | None
    """Of the system to the baseline."""
    interval: Limits
    """Of the difference."""
    p_randomisation: float | None
    p_bootstrap: float | None
    verdict: Literal["better", "worse", "within chance", "undefined"]
    """Of the system, by approximate randomisation and a level of 5 %."""
    tests: str
    """Seed, trials of approximate randomisation, resamples of the bootstrap."""


class BucketBaseline(TypedDict):
    """A baseline on the lines of a bucket."""

    score: float | None
    difference: float | None
    interval: Limits


class BucketScore(TypedDict):
    """The score of some lines of a test set."""

    by: str
    bucket: str
    lines: int
    score: float | None
    interval: Limits
    baselines: dict[str, BucketBaseline]


class ComparedScore(MetricScore):
    """A score with its interval, baselines and buckets."""

    mean: float | None
    """Of the resampled scores, and ..."""
    spread: float | None
    """... half of the 95 % interval around it, as sacreBLEU prints them."""
    baselines: dict[str, TestedBaseline]
    buckets: list[BucketScore]


def compare_scores(
    evaluation: EvaluationConfig, metrics: Mapping[str, Metric], found: Mapping[str, CorpusScore],
    texts: tuple[Sequence[str], Sequence[str], Sequence[Sequence[str]]],
    outputs: Mapping[str, Sequence[str]], buckets: Sequence[Bucket],
) -> Scores:  # fmt: skip
    """Return the scores of a system with what baselines and buckets add.

    Args:
        metrics: those of `evaluation`, by their names in results.
        found: the score of the system by each.
        texts: sources, hypotheses of the system, and references.
        outputs: the hypotheses of each baseline, by its name.
    """
    sources, hypotheses, references = texts
    theirs = {name: score_all(metrics, sources, each, references) for name, each in outputs.items()}
    result: Scores = {}
    for config in evaluation.metrics:
        key = config.result_name
        baselines = {name: (theirs[name][key], (outputs[name], references)) for name in outputs}
        result[key] = _compare_score(
            metrics[key], found[key], (hypotheses, references), baselines, buckets,
            config.higher_is_better,
        )  # fmt: skip
    return result


def _compare_score(
    metric: Metric, found: CorpusScore, texts: Texts,
    baselines: Mapping[str, tuple[CorpusScore, Texts]], buckets: Sequence[Bucket],
    higher_is_better: bool,
) -> MetricScore:  # fmt: skip
    """Return the score of one metric; without scores of lines nothing is added to it."""
    result = as_result(found)
    system = collect_statistics(metric, found, texts)
    others = {
        name: statistics
        for name, (score, its_texts) in baselines.items()
        if (statistics := collect_statistics(metric, score, its_texts)) is not None
    }
    if system is None or len(others) < len(baselines):
        return result
    compared: dict[str, TestedBaseline] = {}
    for name, other in others.items():
        same = list(texts[0]) == list(baselines[name][1][0])
        tested = significance.compare_systems(metric, system, other, same)
        compared[name] = {
            "score": _number(tested.score), "difference": _number(tested.difference),
            "interval": _limits(tested.interval),
            "p_randomisation": _number(tested.p_randomisation),
            "p_bootstrap": _number(tested.p_bootstrap),
            "verdict": _verdict(tested, higher_is_better),
            "tests": significance.describe_tests(),
        }  # fmt: skip
    extended: ComparedScore = {
        **result, "mean": _number(tested.mean), "spread": _number(tested.spread),
        "baselines": compared,
        "buckets": [_score_bucket(bucket, system, others) for bucket in buckets],
    }  # fmt: skip
    return extended


def _verdict(
    tested: Comparison, higher_is_better: bool
) -> Literal["better", "worse", "within chance", "undefined"]:
    if math.isnan(tested.difference):
        return "undefined"
    if not tested.significant:
        return "within chance"
    return "better" if (tested.difference > 0) == higher_is_better else "worse"


def _score_bucket(
    bucket: Bucket, system: Statistics, baselines: Mapping[str, Statistics]
) -> BucketScore:
    rows, weights = bucket.rows, significance.draw_weights(len(bucket.rows))
    others: dict[str, BucketBaseline] = {}
    for name, other in baselines.items():
        score = other.score(rows)
        between = significance.interval_of_difference(system, other, weights, rows)
        others[name] = {
            "score": _number(score), "difference": _number(system.score(rows) - score),
            "interval": _limits(between),
        }  # fmt: skip
    return {
        "by": bucket.by, "bucket": bucket.name, "lines": len(rows),
        "score": _number(system.score(rows)),
        "interval": _limits(significance.interval(system, weights, rows)), "baselines": others,
    }  # fmt: skip


def _limits(interval: Interval) -> Limits:
    return _number(interval.low), _number(interval.high)


def _number(value: float) -> float | None:
    """A number that JSON can hold."""
    return None if math.isnan(value) else round(value, 6)
