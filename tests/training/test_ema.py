"""The moving average of the weights."""

from __future__ import annotations

import torch
from saved_runs import made

from mt.training.ema import MovingAverage


def test_moving_average_forgets_its_random_start(vocabulary):
    step, _ = made(vocabulary, seed=1)
    goal, _ = made(vocabulary, seed=2)
    average = MovingAverage(step, 0.999)
    for number in range(1, 300):
        average.update(goal, number, torch.tensor(True))
    far = (step.model.target_embedding.weight - goal.model.target_embedding.weight).norm()
    near = (
        average.module.model.target_embedding.weight - goal.model.target_embedding.weight
    ).norm()
    assert near < 0.001 * far
