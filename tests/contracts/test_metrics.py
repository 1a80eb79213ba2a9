"""Laws over every metric that needs no program of its own."""

from __future__ import annotations

import json
import math

import pytest

from mt.config.plugins import plugin, plugins
from mt.config.schema import EvaluationConfig
from mt.evaluation import scoring

REFERENCES = ["The old man sleeps in a green room.", "Two dogs play in the high grass."]
WORSE = ["The young man slept in a red room.", "Two cats play at the high wall."]
KINDS = [kind for kind in plugins("metrics") if kind not in ("command", "spbleu")]
"""spBLEU downloads its model; it is BLEU besides."""


def build(kind):
    return scoring.build_metric(plugin("metrics", kind).Config(), "de", EvaluationConfig())


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_itself_is_best(kind):
    metric, config = build(kind), plugin("metrics", kind).Config()
    best, worse = (metric.score((), each, [REFERENCES]) for each in (REFERENCES, WORSE))
    assert best.score != worse.score
    assert (best.score > worse.score) == config.higher_is_better
    assert math.isfinite(worse.score)


@pytest.mark.parametrize("kind", KINDS)
def test_it_scores_again_as_before_and_says_how(kind):
    metric = build(kind)
    first = metric.score((), WORSE, [REFERENCES])
    assert (
        metric.score((), WORSE, [REFERENCES]) == first == build(kind).score((), WORSE, [REFERENCES])
    )
    assert "version:" in first.signature
    assert "nrefs:2" in metric.score((), WORSE, [REFERENCES, WORSE]).signature


def test_names_in_results_are_distinct():
    chosen = EvaluationConfig(metrics=KINDS)
    found = scoring.score_translations(WORSE, [REFERENCES], "de", chosen)
    assert len(found) == len(KINDS)
    json.dumps(found, allow_nan=False)
