"""Laws of the learning-rate schedules."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.config.schema import ScheduleConfig
from mt.training.schedule import layer_rate_factors, rate_factor

KINDS = ["inverse_sqrt", "linear", "cosine", "constant"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_the_rate_rises_to_its_peak_and_never_above(kind, warmup):
    config = ScheduleConfig(kind=kind, warmup_steps=warmup)
    factors = [rate_factor(config, step, 100) for step in range(1, 101)]
    assert all(0 < f <= 1 for f in factors)
    assert factors[max(0, warmup - 1)] == pytest.approx(1, abs=0.02)
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(KINDS), st.integers(0, 10**9), st.integers(1, 10**9), st.integers(1, 10**9))
def test_the_rate_of_any_step_is_a_factor_and_needs_no_other_step(kind, warmup, step, last):
    config = ScheduleConfig(kind=kind, warmup_steps=min(warmup, last - 1))
    factor = rate_factor(config, step, last)
    assert math.isfinite(factor)
    assert 0 <= factor <= 1
    assert factor > 0 or step > last
    assert factor == rate_factor(config, step, last)


def test_inverse_sqrt_is_the_papers_formula():
    config = ScheduleConfig(kind="inverse_sqrt", warmup_steps=4000)
    peak = 512**-0.5 * 4000**-0.5
    for step in (1, 100, 4000, 50_000):
        paper = 512**-0.5 * min(step**-0.5, step * 4000**-1.5)  # equation 3
        assert peak * rate_factor(config, step, None) == pytest.approx(paper)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_falling_schedules_end_near_zero_and_stay_there(kind):
    config = ScheduleConfig(kind=kind, warmup_steps=10)
    assert rate_factor(config, 1000, 1000) < 0.002
    assert rate_factor(config, 1001, 1000) == pytest.approx(0, abs=1e-12)
    assert rate_factor(config, 2000, 1000) == pytest.approx(0, abs=1e-12)


def test_layers_are_counted_from_the_top_of_their_stack_and_embeddings_are_lowest():
    names = [
        "model.target_embedding.weight", "model.encoder.0.norm.weight", "model.encoder.2.a.weight",
        "model.decoder.0.b.weight", "model.decoder.1.b.weight", "model.decoder_norm.weight",
        "model.source_positions.learned.weight", "objective.head.inner.weight",
    ]  # fmt: skip
    factors = layer_rate_factors(names, 0.5)
    assert list(factors.values()) == [0.125, 0.25, 1.0, 0.5, 1.0, 1.0, 0.125, 1.0]
    assert set(layer_rate_factors(names, 1.0).values()) == {1.0}
