"""Laws of the optimizers in mt/optimizers, and of each one's own."""

from __future__ import annotations

import pytest
import torch
from optimizer_updates import built, made

from mt.checkpoints import checkpoint, train_state
from mt.config.plugins import plugins
from mt.training.step import set_rate, set_rate_factors


def updates(step, optimizer, first, last):
    for number in range(first, last):
        generator = torch.Generator().manual_seed(number)
        for parameter in step.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        set_rate(optimizer, 0.01 / (1 + number))
        optimizer.step()


@pytest.mark.parametrize("kind", plugins("optimizers"))
def test_stopped_and_restored_equals_uninterrupted(kind, vocabulary, tmp_path):
    whole = made(vocabulary)
    updates(whole, built(kind, whole, weight_decay=0.1), 0, 6)
    step = made(vocabulary)
    optimizer = built(kind, step, weight_decay=0.1)
    updates(step, optimizer, 0, 3)
    tensors = checkpoint.training_tensors(step, None, optimizer)
    state = train_state.TrainState(step=3)
    folder = checkpoint.save_checkpoint(tmp_path, "step-00000003", step.model, state, {}, tensors)
    step = made(vocabulary, seed=2)
    optimizer = built(kind, step, weight_decay=0.1)
    checkpoint.restore_training(folder, step, None, optimizer)
    updates(step, optimizer, 3, 6)
    for (name, a), b in zip(whole.named_parameters(), step.parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("kind", plugins("optimizers"))
def test_every_parameter_is_updated_once_and_as_the_rate_says(kind, vocabulary):
    step = made(vocabulary)
    optimizer = built(kind, step)
    grouped = [p for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, grouped)) == sorted(map(id, step.parameters()))
    before = [p.detach().clone() for p in step.parameters()]
    updates(step, optimizer, 0, 1)
    assert not any(torch.equal(a, b) for a, b in zip(before, step.parameters(), strict=True))
    before = [p.detach().clone() for p in step.parameters()]
    set_rate(optimizer, 0.0)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, step.parameters(), strict=True))


@pytest.mark.parametrize("kind", plugins("optimizers"))
def test_a_parameter_may_have_a_part_of_the_rate(kind, vocabulary):
    """A rate of 0 leaves alone what has it; factor 1 for all changes nothing."""
    plain, scaled, frozen = (made(vocabulary) for _ in range(3))
    for step, other in ((scaled, 1.0), (frozen, 0.0)):
        named = dict(step.named_parameters())
        factors = {name: other if "decoder.0" in name else 1.0 for name in named}
        optimizer = built(kind, step)
        set_rate_factors(optimizer, named, factors)
        updates(step, optimizer, 0, 2)
    updates(plain, built(kind, plain), 0, 2)
    before = dict(made(vocabulary).named_parameters())
    for (name, a), b, c in zip(
        plain.named_parameters(), scaled.parameters(), frozen.parameters(), strict=True
    ):
        assert torch.equal(a, b), name
        assert torch.equal(c, before[name] if "decoder.0" in name else a), name
