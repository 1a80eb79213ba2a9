"""Limits of scores, for a job that fails when a model has become worse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mt.config.schema import EvaluationConfig, MetricConfig
from mt.errors import ConfigError, DataError
from mt.evaluation.scoring import Scores


def parse_limits(
    texts: Sequence[str], evaluation: EvaluationConfig
) -> list[tuple[MetricConfig, float]]:
    """Return the metric and the value of each `METRIC=VALUE`.

    Raises:
        ConfigError: it is not of this form, or the metric is not computed.
    """
    names = {
        name.lower(): config
        for config in evaluation.metrics
        for name in (config.result_name, config.label)
    }
    found = []
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not name or not math.isfinite(number):
            advice = "write METRIC=VALUE, such as bleu=30"
            raise ConfigError("USAGE", f"--fail-below {text}", "it is no limit", advice)
        if name.lower() not in names:
            advice = f"there are: {', '.join(c.label for c in evaluation.metrics)}; see --metric"
            raise ConfigError("USAGE", f"--fail-below {text}", f"{name} is not computed", advice)
        found.append((names[name.lower()], number))
    return found


def check_limits(
    scores: Mapping[str, Scores], limits: Sequence[tuple[MetricConfig, float]]
) -> None:
    """Check the scores of all test sets; where less is better, a score fails above its limit.

    Raises:
        DataError: some are worse than their limits, or undefined; names each.
    """
    problems = []
    for name, metrics in scores.items():
        for config, limit in limits:
            found = metrics[config.result_name]
            worse = found["score"] < limit if config.higher_is_better else found["score"] > limit
            side = "below" if config.higher_is_better else "above"
            if "undefined" in found:
                what = f"is undefined, and at least {limit:g} is wanted"
                problems.append((name, f"{config.result_name} {what}"))
            elif worse:
                what = f"{config.result_name} is {found['score']:g}, {side} {limit:g}"
                problems.append((name, what))
    if problems:
        (where, what), *others = problems
        advice = "the model is worse than --fail-below allows"
        raise DataError("SCORE-LIMIT", where, what, advice, others)
