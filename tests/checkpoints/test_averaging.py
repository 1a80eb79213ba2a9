"""The mean of the weights of several checkpoints."""

from __future__ import annotations

import torch

from mt.checkpoints.averaging import mean_weights


def test_the_mean_of_weights_is_their_mean():
    weights = [{"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, 6.0])}]
    assert mean_weights(weights)["a"].tolist() == [2.0, 4.0]
