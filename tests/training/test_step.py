"""Laws of one update: what is not finite changes nothing; what does not fit is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_steps import made

from mt.config.plugins import plugin, plugins
from mt.data import collate
from mt.errors import MachineError
from mt.training.objectives import cross_entropy
from mt.training.step import (
    accumulate_gradients,
    clipped_step,
    compute_gradients,
    set_rate,
    step_if_finite,
    step_or_restore,
)

NO_SCALER = torch.amp.GradScaler("cpu", enabled=False)


def batch_of(*lengths, seed=1):
    generator = np.random.default_rng(seed)
    sides = [[np.append(generator.integers(68, 90, n - 1), 3) for n in both] for both in lengths]
    return collate.to_batch([s for s, _ in sides], [t for _, t in sides], np.arange(len(sides)))


BATCHES = [batch_of((5, 4), (7, 9), (3, 3)), batch_of((9, 9), (9, 8), (8, 9), (9, 2), seed=2)]


def state_of(step, optimizer):
    held = [p.detach().clone() for p in step.parameters()]
    for parameter in step.parameters():
        held += [v.clone() for v in optimizer.state[parameter].values()]
    return held


# ------------------------------------------------------------------- what is not finite


def built(kind, step):
    if kind == "sgd":
        return torch.optim.SGD(step.parameters(), lr=0.1, momentum=0.9)
    module = plugin("optimizers", kind)
    return module.build(module.Config(weight_decay=0.1), list(step.named_parameters()))


@pytest.fixture(params=[*plugins("optimizers"), "sgd"])
def optimizer(request, step):
    return built(request.param, step)


def fill(step, value=None):
    generator = torch.Generator().manual_seed(3)
    for parameter in step.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    if value is not None:
        next(step.parameters()).grad[0, 0] = value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("first", [True, False])
def test_an_update_that_is_not_finite_changes_nothing(step, optimizer, value, first):
    if not first:
        fill(step)
        step_if_finite(optimizer, torch.tensor(True))
    before = state_of(step, optimizer)
    fill(step, value)
    norm = torch.nn.utils.clip_grad_norm_(step.parameters(), 1.0)
    step_if_finite(optimizer, norm.isfinite())
    after = state_of(step, optimizer)
    # State that a first step makes is as new: all zeros.
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=False)) or first
    assert not any(tensor.any() for tensor in after[len(before) :])
    fill(step)
    step_if_finite(optimizer, torch.tensor(True))
    assert not torch.equal(before[0], state_of(step, optimizer)[0])


def test_a_skipped_update_leaves_no_trace_in_what_follows(vocabulary, optimizer, step):
    """Finite, not finite, finite is the same as finite, finite; to the bit."""
    other = made(vocabulary)
    twin = built("sgd" if isinstance(optimizer, torch.optim.SGD) else kind_of(optimizer), other)
    for flags, module, one in (([1, 0, 1], step, optimizer), ([1, 1], other, twin)):
        for flag in flags:
            fill(module, None if flag else float("nan"))
            step_if_finite(one, torch.tensor(bool(flag)))
    for a, b in zip(state_of(step, optimizer), state_of(other, twin), strict=True):
        assert torch.equal(a, b)


def kind_of(optimizer):
    for kind in plugins("optimizers"):
        if isinstance(optimizer, type(built(kind, torch.nn.Linear(2, 2)))):
            return kind
    raise AssertionError


def test_what_cannot_skip_is_put_back(step):
    """The device's way, without asking, for optimizers that know nothing of skipping."""
    optimizer = torch.optim.SGD(step.parameters(), lr=0.1, momentum=0.9)
    fill(step)
    optimizer.step()
    before = state_of(step, optimizer)
    fill(step, float("nan"))
    step_or_restore(optimizer, torch.tensor(False))
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(step, optimizer), strict=True))
    fill(step)
    step_or_restore(optimizer, torch.tensor(True))
    assert not torch.equal(before[0], next(step.parameters()))


def test_rates_follow_each_groups_factor(step):
    first, *others = step.parameters()
    rate = torch.tensor(0.0)
    groups = [{"params": [first], "factor": 0.5}, {"params": others, "lr": rate}]
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    set_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] == 0.125
    assert optimizer.param_groups[1]["lr"] is rate
    assert float(rate) == 0.25


# --------------------------------------------------------------------- what does not fit


class Cramped(cross_entropy.CrossEntropy):
    """Runs out of memory in the backward pass of whatever has more than `room` target slots."""

    def __init__(self, model, room, error):
        super().__init__(model, 0.1)
        self.room, self.error, self.failures = room, error, 0

    def forward(self, batch):
        (term,) = super().forward(batch)
        if batch.target.numel() <= self.room:
            return (term,)
        # A gradient that fails where others have been added to by then.
        owner = next(self.model.parameters())
        return (type(term)(term.name, term.total + Failing.apply(owner, self) * 0, term.count),)


class Failing(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, objective):
        ctx.objective = objective
        return x.sum()

    @staticmethod
    def backward(ctx, gradient):
        ctx.objective.failures += 1
        raise ctx.objective.error


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("room", [11, 21, 31])
def test_a_micro_batch_that_does_not_fit_is_cut_without_changing_the_gradient(step, error, room):
    whole = accumulate_gradients(step, step.objective, BATCHES, NO_SCALER)
    expected = [p.grad.clone() for p in step.parameters()]
    step.zero_grad()
    cramped = Cramped(step.model, room, error)
    step.objective = cramped
    loss, split = compute_gradients(step, cramped, BATCHES, NO_SCALER, seed=1)
    assert cramped.failures == len(split) > 0
    torch.testing.assert_close(loss, whole, rtol=0, atol=1e-6)
    for parameter, gradient in zip(step.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-6)


def test_a_single_pair_that_does_not_fit_is_named(step):
    step.objective = Cramped(step.model, 9, ERRORS[0])
    with pytest.raises(MachineError, match="OOM") as error:
        compute_gradients(step, step.objective, BATCHES, NO_SCALER, seed=1)
    assert "7 source and 9 target tokens" in str(error.value)
    assert "data.max_length" in str(error.value)
    assert error.value.exit_code == 5


def test_other_errors_are_not_taken_for_it(step):
    step.objective = Cramped(step.model, 9, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        compute_gradients(step, step.objective, BATCHES, NO_SCALER, seed=1)


def test_rows_that_only_fill_a_shape_are_left_out_of_the_halves(step):
    """A shape's padding rows are no pairs: they neither count nor hide that one pair is left."""
    (batch,) = [batch_of((4, 4), (4, 4), (4, 4))]
    batch.target_lengths[2] = batch.source_lengths[2] = 0
    step.objective = Cramped(step.model, 5, ERRORS[0])
    loss, split = compute_gradients(step, step.objective, [batch], NO_SCALER, seed=1)
    assert len(split) == 1
    assert bool(loss.isfinite())


# ------------------------------------------------------------------------------ clipping


@pytest.mark.parametrize("clip", [None, 0.5, 1e6])
def test_a_clipped_step_is_torchs_clipping_and_a_step(vocabulary, optimizer, step, clip):
    other = made(vocabulary)
    twin = built("sgd" if isinstance(optimizer, torch.optim.SGD) else kind_of(optimizer), other)
    for _ in range(2):
        fill(step)
        fill(other)
        expected = torch.nn.utils.clip_grad_norm_(other.parameters(), clip or float("inf"))
        twin.step()
        norm, finite = clipped_step(optimizer, step.parameters(), clip)
        assert finite
        torch.testing.assert_close(norm, expected)
    for mine, theirs in zip(step.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
