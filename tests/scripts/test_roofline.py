"""What an update does on a device is counted without one."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from mt.config import recipe as recipes

ROOT = Path(__file__).parents[2]
LENGTH = 27


@pytest.fixture(scope="module")
def roofline():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        yield importlib.import_module("bench.roofline")


@pytest.fixture(scope="module")
def base():
    return recipes.load(ROOT / "configs" / "transformer_base_wmt14_en_de.yaml")[0]


@pytest.fixture(scope="module")
def counted(roofline, base):
    return roofline.count_update(base, LENGTH)


def test_products_take_the_flops_of_the_formula(base, counted):
    """Six a weight and token (Kaplan et al. 2020): two forward, four backward."""
    counter, tokens = counted
    model = base.model
    d, layers = model.d_model, model.encoder_layers
    encoder = layers * (4 * d * d + 2 * d * model.d_ff)
    decoder = layers * (8 * d * d + 2 * d * model.d_ff)
    expected = 6 * tokens * (encoder + decoder + base.vocabulary.size * d)
    assert counter.parts["products"].flops == pytest.approx(expected, rel=0.01)


def test_an_update_launches_no_more_kernels_than_before(counted):
    """Two hundred launches more are a quarter of a millisecond of each update on a GPU."""
    counter, _ = counted
    assert 1_200 < counter.kernels <= 1_360, counter.parts


def test_kernels_do_not_depend_on_the_size_of_a_batch(roofline, base):
    few, _ = roofline.count_update(base, 9)
    many, _ = roofline.count_update(base, 54)
    assert few.kernels == many.kernels


def test_a_prediction_grows_with_what_is_slower(roofline, counted):
    counter, _ = counted
    fast = roofline.predict_ms(counter, 790, 4.3, 1.3)
    slow = roofline.predict_ms(counter, 395, 2.15, 2.6)
    assert sum(slow.values()) == pytest.approx(2 * sum(fast.values()))


def test_a_step_of_decoding_projects_each_beam_once(roofline, base):
    counter = roofline.count_decoding_step(base, 64, 5, LENGTH)
    by_step = 2 * 64 * 5 * base.vocabulary.size * base.model.d_model
    assert by_step < counter.parts["products"].flops < 2.5 * by_step
    assert counter.kernels <= 260
