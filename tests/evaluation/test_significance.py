"""p-values and intervals are those of sacreBLEU's own command line, on the same files."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest

from mt.config.schema import EvaluationConfig
from mt.evaluation import significance
from mt.evaluation.scoring import CorpusScore, make_metrics
from mt.evaluation.significance import Statistics, collect_statistics, compare_systems

REFERENCES = [
    f"The {a} {b} {c} in the {d}." for a in ("old", "red") for b in ("man", "dog", "car")
    for c in ("sleeps", "waits", "is seen") for d in ("house", "garden")
]  # fmt: skip


def damaged(seed, often):
    """The references with some words lost, others doubled."""
    draw = random.Random(seed)
    changed = []
    for line in REFERENCES:
        words = [w for w in line.split() for _ in range(1 if draw.random() > often else 2)]
        changed.append(" ".join(w for w in words if draw.random() > often))
    return changed


GOOD, BAD = damaged(1, 0.15), damaged(2, 0.3)
METRICS = EvaluationConfig(metrics=("bleu", "chrf", "ter"))


def compared(system, baseline):
    """The comparison by each metric."""
    found = {}
    for name, metric in make_metrics("en", METRICS).items():
        counts = [
            collect_statistics(metric, metric.score((), texts, [REFERENCES]), (texts, [REFERENCES]))
            for texts in (system, baseline)
        ]
        found[name] = compare_systems(metric, *counts, same=system == baseline)
    return found


@pytest.fixture(scope="module")
def found():
    """The comparison of the good system with the bad one."""
    return compared(GOOD, BAD)


def command_line(folder, test):
    """What sacreBLEU prints of the good system: a number for each column of the three metrics."""
    for name, lines in (("references", REFERENCES), ("bad", BAD), ("good", GOOD)):
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "sacrebleu", "references", "-i", "bad", "good", "-m", "bleu", "chrf",
         "ter", test, "-w", "4", "--format", "text", "--no-color"],
        cwd=folder, capture_output=True, encoding="utf-8", check=True, timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    printed = done.stdout.partition("good")[2].partition("---")[0]
    return [float(number) for number in re.findall(r"\d+\.\d{4}", printed)]


def test_it_is_what_the_command_line_of_sacrebleu_prints(tmp_path, found):
    each = [found[name] for name in ("BLEU", "chrF2", "TER")]
    scores = [one.score + one.difference for one in each]
    printed = command_line(tmp_path, "--paired-ar")
    assert [*scores, *(one.p_randomisation for one in each)] == pytest.approx(printed, abs=6e-5)
    printed = command_line(tmp_path, "--paired-bs")
    rows = [(score, one.mean, one.spread) for score, one in zip(scores, each, strict=True)]
    mine = [*(value for row in rows for value in row), *(one.p_bootstrap for one in each)]
    assert mine == pytest.approx(printed, abs=6e-5)
    assert found["BLEU"].significant
    assert found["BLEU"].difference > 0 > found["TER"].difference


def test_our_resamples_are_those_of_sacrebleu(found):
    weights = significance.draw_weights(len(REFERENCES))
    metric = make_metrics("en", METRICS)["chrF2"]
    counts = collect_statistics(metric, metric.score((), GOOD, [REFERENCES]), (GOOD, [REFERENCES]))
    assert (weights.sum(1) == len(REFERENCES)).all()
    assert counts.resample(weights).mean() == pytest.approx(found["chrF2"].mean, rel=1e-5)


def test_equal_translations_are_no_difference():
    for each in compared(GOOD, list(GOOD)).values():
        assert (each.difference, each.interval.low, each.interval.high) == (0, 0, 0)
        assert (each.p_randomisation, each.p_bootstrap) == (1, 1)
        assert not each.significant


def test_the_interval_is_around_the_difference_and_turns_with_it(found):
    there, back = found["chrF2"], compared(BAD, GOOD)["chrF2"]
    assert there.interval.low < there.difference < there.interval.high
    assert back.difference == pytest.approx(-there.difference)
    assert back.interval.low == pytest.approx(-there.interval.high)


def of_segments(values):
    found = CorpusScore(float(np.mean(values)), "x", segments=list(values))
    return collect_statistics(object(), found, ((), ()))


def test_scores_of_lines_are_tested_on_their_means():
    draw = np.random.default_rng(1)
    base = draw.normal(0.7, 0.1, 200)
    better, same = base + draw.normal(0.05, 0.1, 200), base + draw.normal(0, 0.1, 200)
    clear = compare_systems(object(), of_segments(better), of_segments(base), same=False)
    assert clear.significant
    assert clear.p_bootstrap < 0.01
    assert clear.interval.low > 0
    assert clear.score == pytest.approx(base.mean())
    error = better.std() / len(better) ** 0.5
    assert clear.spread == pytest.approx(1.96 * error, rel=0.15)
    none = compare_systems(object(), of_segments(same), of_segments(base), same=False)
    assert not none.significant
    assert none.p_bootstrap > 0.05


def test_chance_is_called_significant_as_seldom_as_the_level_says():
    draw = np.random.default_rng(2)
    count = 60
    found = [
        compare_systems(object(), of_segments(a), of_segments(b), same=False).significant
        for a, b in draw.normal(size=(count, 2, 40))
    ]
    assert sum(found) <= 8  # 3 are expected; more than 8 has a probability of 0.4 %


def test_a_metric_without_scores_of_lines_is_not_tested():
    assert collect_statistics(object(), CorpusScore(1.0, "x"), ((), ())) is None


def test_an_undefined_score_has_no_interval():
    metric = make_metrics("en", METRICS)["BLEU"]
    texts = ["a b", "c d"], [["a b", "c d"]]
    short = collect_statistics(metric, metric.score((), *texts), texts)
    assert isinstance(short, Statistics)
    assert np.isnan(short.score())
    assert np.isnan(significance.interval(short, significance.draw_weights(2)).low)
    tested = compare_systems(metric, short, short, same=False)
    assert np.isnan([tested.difference, tested.p_randomisation, tested.p_bootstrap]).all()
    assert not tested.significant
