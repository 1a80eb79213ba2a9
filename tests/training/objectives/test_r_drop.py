"""Laws of R-Drop besides those of every objective (tests/contracts)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mt.data import collate
from mt.models import transformer
from mt.training.objectives import cross_entropy, r_drop


def model_of(vocabulary, dropout):
    torch.manual_seed(1)
    config = transformer.Config(
        d_model=16, n_heads=2, d_ff=16, encoder_layers=1, decoder_layers=1, dropout=dropout
    )
    return transformer.build(config, vocabulary)


@pytest.fixture
def batch():
    generator = np.random.default_rng(1)
    sides = [
        [np.append(generator.integers(68, 90, n), 3) for n in generator.integers(1, 9, 6)]
        for _ in range(2)
    ]
    return collate.to_batch(*sides, np.arange(6))


def mean(objective, batch):
    """The mean loss, and the gradient of it."""
    objective.zero_grad()
    (term,) = objective(batch)
    loss = term.weight * term.total / term.count
    loss.backward()
    return loss.detach(), [parameter.grad.clone() for parameter in objective.parameters()]


def test_without_dropout_it_is_the_cross_entropy(vocabulary, batch):
    """The passes are the same, so they lie nothing apart."""
    model = model_of(vocabulary, dropout=0.0)
    plain = mean(cross_entropy.CrossEntropy(model, 0.1), batch)
    both = mean(r_drop.RDrop(model, 0.1, alpha=5.0), batch)
    torch.testing.assert_close(both[0], plain[0], rtol=1e-5, atol=1e-5)
    for one, other in zip(both[1], plain[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_with_dropout_the_divergence_counts_alpha_times(vocabulary, batch):
    model = model_of(vocabulary, dropout=0.5)
    losses = []
    for alpha in (0.0, 1.0, 5.0):
        torch.manual_seed(3)
        losses.append(float(mean(r_drop.RDrop(model, 0.1, alpha), batch)[0]))
    assert losses[1] - losses[0] > 1e-3
    assert losses[2] - losses[0] == pytest.approx(5 * (losses[1] - losses[0]), rel=1e-3)


def test_it_draws_the_passes_together(vocabulary, batch):
    """Training on it lets the divergence fall, where the cross-entropy alone does not."""
    apart = {}
    for alpha in (0.0, 20.0):
        model = model_of(vocabulary, dropout=0.3)
        objective = r_drop.RDrop(model, 0.0, alpha)
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for step in range(60):
            torch.manual_seed(step)
            mean(objective, batch)
            optimizer.step()
        losses = []
        for weight in (0.0, 1.0):
            torch.manual_seed(1000)
            losses.append(float(mean(r_drop.RDrop(model, 0.0, weight), batch)[0]))
        apart[alpha] = losses[1] - losses[0]
    assert apart[20.0] < 0.5 * apart[0.0]


def test_validation_is_one_pass_without_smoothing(vocabulary, batch):
    model = model_of(vocabulary, dropout=0.5)
    (one,) = r_drop.RDrop(model, 0.2, 5.0).eval()(batch)
    (other,) = cross_entropy.CrossEntropy(model, 0.1).eval()(batch)
    assert torch.equal(one.total, other.total)
    assert torch.equal(one.count, other.count)


def test_in_bf16_it_is_near(vocabulary, batch):
    model = model_of(vocabulary, dropout=0.0)
    objective = r_drop.RDrop(model, 0.1, 5.0)
    exact, _ = mean(objective, batch)
    with torch.autocast("cpu", torch.bfloat16):
        near, _ = mean(objective, batch)
    torch.testing.assert_close(near, exact, rtol=0.02, atol=0.02)
