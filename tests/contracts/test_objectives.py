"""Laws that every objective in mt/objectives keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mt.config.plugins import plugin, plugins
from mt.data import collate
from mt.models import transformer
from mt.training.step import ModelWithLoss, accumulate_gradients
from mt.training.teacher import ModelTeacher


@pytest.fixture(params=plugins("objectives"))
def step(request, vocabulary):
    config = transformer.Config(
        d_model=16, n_heads=2, d_ff=16, encoder_layers=1, decoder_layers=1, dropout=0
    )
    model = transformer.build(config, vocabulary)
    teacher = ModelTeacher(transformer.build(config, vocabulary))
    module = plugin("objectives", request.param)
    return ModelWithLoss(model, module.build(module.Config(), model, vocabulary, teacher), "fp32")


@pytest.fixture
def pairs():
    generator = np.random.default_rng(1)
    lengths = generator.integers(1, 9, (16, 2))
    return [[np.append(generator.integers(68, 90, n), 3) for n in both] for both in lengths]


def batches(pairs, size):
    groups = [pairs[i : i + size] for i in range(0, len(pairs), size)]
    return [
        collate.to_batch([s for s, _ in g], [t for _, t in g], np.arange(len(g))) for g in groups
    ]


def gradients(step, pairs, size):
    step.zero_grad()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    loss = accumulate_gradients(step, step.objective, batches(pairs, size), scaler)
    return loss, {n: p.grad.clone() for n, p in step.named_parameters()}


@pytest.mark.parametrize("size", [1, 4, 8])
def test_accumulation_equals_one_batch(step, pairs, size):
    """1 x 16 == 4 x 4 == 16 x 1, although the parts hold different numbers of tokens."""
    loss, whole = gradients(step, pairs, 16)
    same, parts = gradients(step, pairs, size)
    torch.testing.assert_close(loss, same)
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], rtol=1e-4, atol=1e-6)


def test_counts_are_known_before_the_pass(step, pairs):
    (batch,) = batches(pairs, 16)
    told = step.objective.counts(batch)
    assert {term.name: float(term.count) for term in step(batch)} == {
        name: float(count) for name, count in told.items()
    }


def test_terms_are_sums(step, pairs):
    """Twice the batch, twice the total and the count."""
    step.eval()
    (one,), (two,) = batches(pairs, 16), batches(pairs + pairs, 32)
    for a, b in zip(step(one), step(two), strict=True):
        torch.testing.assert_close(2 * a.total, b.total)
        assert 2 * int(a.count) == int(b.count)


def test_padding_does_not_count(step, pairs):
    step.eval()
    (batch,) = batches(pairs, 16)
    wide = collate.to_batch(
        [*[s for s, _ in pairs], np.full(30, 70)], [*[t for _, t in pairs], np.full(30, 70)],
        np.arange(17),
    )  # fmt: skip
    cut = {name: getattr(wide, name)[:16] for name in type(wide).__dataclass_fields__}
    for a, b in zip(step(batch), step(type(wide)(**cut)), strict=True):
        torch.testing.assert_close(a.total, b.total)
        assert int(a.count) == int(b.count)
