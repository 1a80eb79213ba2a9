"""The moving average of the weights."""

from __future__ import annotations

import saved_runs
import torch
from small_steps import made

from mt.training.ema import MovingAverage


def test_moving_average_forgets_its_random_start(vocabulary):
    step, _ = saved_runs.made(vocabulary, seed=1)
    goal, _ = saved_runs.made(vocabulary, seed=2)
    average = MovingAverage(step, 0.999)
    for number in range(1, 300):
        average.update(goal, number, torch.tensor(True))
    far = (step.model.target_embedding.weight - goal.model.target_embedding.weight).norm()
    near = (
        average.module.model.target_embedding.weight - goal.model.target_embedding.weight
    ).norm()
    assert near < 0.001 * far


def test_the_average_takes_in_no_skipped_update(vocabulary, step):
    average = MovingAverage(step, 0.9)
    before = [p.clone() for p in average.module.parameters()]
    average.update(made(vocabulary, seed=2), 3, torch.tensor(False))
    assert all(torch.equal(a, b) for a, b in zip(before, average.module.parameters(), strict=True))
    average.update(made(vocabulary, seed=2), 3, torch.tensor(True))
    assert not torch.equal(before[0], next(average.module.parameters()))
