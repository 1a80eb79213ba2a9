"""Is a system better than a baseline? Paired tests and intervals, for any metric.

For BLEU, chrF and TER the tests are sacreBLEU's, with its seed (`SACREBLEU_SEED`, else 12345) and
its numbers of trials: approximate randomisation (Riezler and Maxwell 2005) swaps the lines of both
systems at random, bootstrap resampling (Koehn 2004) draws lines with replacement. A metric with a
score for each line is tested in the same ways on the means.

Shapes: L lines, K statistics of a line, R resamples.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mt.evaluation.scoring import CorpusScore, Metric, SacreBleuMetric, is_undefined

RESAMPLES = 1000
"""Of the bootstrap: sacreBLEU's default."""
TRIALS = 10_000
"""Of approximate randomisation: sacreBLEU's default."""
CHUNK = 500
"""Trials of one array operation."""
MIDDLE = (2.5, 97.5)
"""Percentiles between which 95 % of the resampled scores are."""
LEVEL = 0.05
"""A difference with a p-value below this is called significant."""

Floats = NDArray[np.float64]
Texts = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Hypotheses and references."""


@dataclass(frozen=True)
class Statistics:
    """What a metric counts in each line, and the score of the sums."""

    lines: Floats  # [L, K]
    aggregate: Callable[[Floats], float]
    """The score of sums [K]; NaN: it is undefined."""
    counts: Any = None
    """The lines as sacreBLEU counts them."""

    def score(self, rows: NDArray[Any] | slice = slice(None)) -> float:
        """The score of some lines."""
        return self.aggregate(self.lines[rows].sum(0))

    def resample(self, weights: NDArray[Any], rows: NDArray[Any] | slice = slice(None)) -> Floats:
        """The scores [R] of resamples of some lines; `weights` [R, L] counts each line."""
        return np.array([self.aggregate(sums) for sums in weights @ self.lines[rows]])


@dataclass(frozen=True)
class Interval:
    """Where 95 % of the resampled values are."""

    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A system and a baseline on the same lines."""

    score: float
    """Of the baseline."""
    difference: float
    """Of the system to the baseline."""
    interval: Interval
    """Of the difference."""
    mean: float
    """Of the resampled scores of the system."""
    spread: float
    """Half of the 95 % interval around it, as sacreBLEU prints it."""
    p_randomisation: float
    """NaN, as the other values are, where one of the scores is undefined."""
    p_bootstrap: float

    @property
    def significant(self) -> bool:
        """Whether chance is an unlikely reason of the difference, by approximate randomisation."""
        return self.p_randomisation < LEVEL


def collect_statistics(metric: Metric, found: CorpusScore, texts: Texts) -> Statistics | None:
    """Return what a metric counts in each line; None: it has no scores of lines."""
    if isinstance(metric, SacreBleuMetric):
        counts = metric.metric._extract_corpus_statistics(*map(list, texts))

        def aggregate(sums: Floats) -> float:
            score = metric.metric._compute_score_from_stats(sums.tolist())
            return float("nan") if is_undefined(score) else float(score.score)

        return Statistics(np.array(counts, dtype=np.float64), aggregate, counts)
    if found.segments is None:
        return None
    ones = np.ones(len(found.segments))
    return Statistics(np.stack([np.array(found.segments), ones], 1), lambda sums: sums[0] / sums[1])


def compare_systems(
    metric: Metric, system: Statistics, baseline: Statistics, same: bool
) -> Comparison:
    """Test whether a system and a baseline differ; `same`: all their translations are equal.

    Equal translations have p = 1, where sacreBLEU prints its smallest value.
    """
    score, nan = baseline.score(), float("nan")
    if np.isnan(system.score() - score):
        return Comparison(score, nan, Interval(nan, nan), nan, nan, nan, nan)
    if isinstance(metric, SacreBleuMetric):
        mean, spread, p_randomisation, p_bootstrap = _test_by_sacrebleu(metric, system, baseline)
    else:
        mean, spread, p_randomisation, p_bootstrap = _test_means(system, baseline)
    weights = draw_weights(len(system.lines))
    return Comparison(
        score, system.score() - score, interval_of_difference(system, baseline, weights),
        mean, spread, 1.0 if same else p_randomisation, 1.0 if same else p_bootstrap,
    )  # fmt: skip


def draw_weights(lines: int) -> NDArray[np.float32]:
    """Return how often each line is in each of sacreBLEU's resamples, [R, L]."""
    drawn = np.random.default_rng(_seed()).choice(lines, size=(RESAMPLES, lines), replace=True)
    weights = np.zeros((RESAMPLES, lines), dtype=np.float32)
    for row, line_numbers in zip(weights, drawn, strict=True):
        row += np.bincount(line_numbers, minlength=lines)
    return weights


def interval(
    system: Statistics, weights: NDArray[Any], rows: NDArray[Any] | slice = slice(None)
) -> Interval:
    """Return the 95 % interval of the score of some lines."""
    return _middle(system.resample(weights, rows))


def interval_of_difference(
    system: Statistics, baseline: Statistics, weights: NDArray[Any],
    rows: NDArray[Any] | slice = slice(None),
) -> Interval:  # fmt: skip
    """Return the 95 % interval of the difference on some lines, both resampled together."""
    return _middle(system.resample(weights, rows) - baseline.resample(weights, rows))


def _middle(values: Floats) -> Interval:
    if np.isnan(values).all():
        return Interval(float("nan"), float("nan"))
    return Interval(*(float(value) for value in np.nanpercentile(values, MIDDLE)))


def _seed() -> int | None:
    """sacreBLEU's seed; None: another one each time."""
    seed = os.environ.get("SACREBLEU_SEED", "12345")
    return None if seed.lower() == "none" else int(seed)


def describe_tests() -> str:
    """Return the seed and the numbers of trials, as in sacreBLEU's signatures."""
    return f"seed:{_seed()}|ar:{TRIALS}|bs:{RESAMPLES}"


def _test_by_sacrebleu(
    metric: SacreBleuMetric, system: Statistics, baseline: Statistics
) -> tuple[float, float, float, float]:
    """Return mean and spread of the system, and p by approximate randomisation and bootstrap."""
    from sacrebleu.significance import PairedTest

    # Counting is slow for TER, and done: a copy of the metric takes the counts for hypotheses.
    counting: Any = copy.copy(metric.metric)
    counting._extract_corpus_statistics = lambda counts, _: counts
    systems = [("baseline", baseline.counts), ("system", system.counts)]
    results = []
    for test, count in (("ar", TRIALS), ("bs", RESAMPLES)):
        _, scores = PairedTest(systems, {"": counting}, None, test, count)()
        (found,) = (value[1] for name, value in scores.items() if name != "System")
        results.append(found)
    by_randomisation, by_bootstrap = results
    mean, spread = float(by_bootstrap.mean), float(by_bootstrap.ci)
    return mean, spread, by_randomisation.p_value, by_bootstrap.p_value


def _test_means(system: Statistics, baseline: Statistics) -> tuple[float, float, float, float]:
    """Return the same for scores of lines, whose mean is the score."""
    from sacrebleu.significance import _compute_p_value, estimate_ci

    differences = system.lines[:, 0] - baseline.lines[:, 0]
    found, weights = abs(differences.mean()), draw_weights(len(differences))
    mean, spread = estimate_ci(system.resample(weights))
    resampled = np.abs(weights @ differences / len(differences))
    random = np.random.default_rng(_seed())
    swapped = [  # a system that takes some lines of the other
        differences.sum() - 2 * random.integers(2, size=(CHUNK, len(differences))) @ differences
        for _ in range(TRIALS // CHUNK)
    ]
    shuffled = np.abs(np.concatenate(swapped)) / len(differences)
    by_randomisation = _compute_p_value(shuffled, float(found))
    by_bootstrap = _compute_p_value(resampled - resampled.mean(), float(found))
    return float(mean), float(spread), by_randomisation, by_bootstrap
