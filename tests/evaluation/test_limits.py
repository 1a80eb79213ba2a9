"""A score that is worse than its limit is an error of the data, named with both figures."""

from __future__ import annotations

import pytest

from mt.config.schema import EvaluationConfig
from mt.errors import ConfigError, DataError
from mt.evaluation.limits import check_limits, parse_limits

PLAIN = EvaluationConfig()


def scores(**values):
    return {"test": {name: {"score": value, "signature": "x"} for name, value in values.items()}}


@pytest.mark.parametrize("text", ["bleu=30", "BLEU=30", "chrf=50", "chrF2=50", "ter=60", "TER=60"])
def test_a_score_at_its_limit_is_enough(text):
    check_limits(scores(BLEU=30.0, chrF2=50.0, TER=60.0), parse_limits([text], PLAIN))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bleu=30.01", "test: BLEU is 30, below 30.01"),
        ("chrf=50.5", "test: chrF2 is 50, below 50.5"),
        ("ter=59", "test: TER is 60, above 59"),
    ],
)
def test_a_worse_score_is_an_error_with_exit_code_3(text, message):
    with pytest.raises(DataError, match=message) as error:
        check_limits(scores(BLEU=30.0, chrF2=50.0, TER=60.0), parse_limits([text], PLAIN))
    assert error.value.exit_code == 3


def test_every_limit_that_is_missed_is_named():
    limits = parse_limits(["bleu=31", "ter=50"], PLAIN)
    with pytest.raises(DataError) as error:
        check_limits(scores(BLEU=30.0, chrF2=50.0, TER=60.0), limits)
    assert str(error.value).count("SCORE-LIMIT") == 2


def test_an_undefined_score_reaches_no_limit():
    found = scores(BLEU=0.0)
    found["test"]["BLEU"]["undefined"] = "no translation has four tokens"
    with pytest.raises(DataError, match="BLEU is undefined"):
        check_limits(found, parse_limits(["bleu=0"], PLAIN))


@pytest.mark.parametrize("text", ["bleu", "bleu=", "bleu=x", "=3", "bleu=nan", "spbleu=3", "x=1"])
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(ConfigError, match="--fail-below"):
        parse_limits([text], PLAIN)
