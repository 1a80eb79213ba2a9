"""Gradients of a weighted sum, and exact comparison."""

from __future__ import annotations

import torch

LENGTHS = [7, 5, 3, 1]


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def valid_of(lengths):
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def gradients(outcome, inputs):
    """Of a sum whose every element counts differently, by each of the inputs."""
    weights = torch.linspace(-1, 2, outcome.numel(), dtype=outcome.dtype).view_as(outcome)
    return torch.autograd.grad((outcome * weights).sum(), inputs)
