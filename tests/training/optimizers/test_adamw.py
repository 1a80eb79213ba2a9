"""AdamW is that of torch, and decays matrices only."""

from __future__ import annotations

import torch
from optimizer_updates import made

from mt.training.optimizers import adamw


def test_only_matrices_that_are_no_embeddings_decay(vocabulary):
    named = dict(made(vocabulary).named_parameters())
    optimizer = adamw.build(adamw.Config(weight_decay=0.1), named.items())
    decay = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    for name, parameter in named.items():
        matrix = parameter.ndim >= 2 and "embedding" not in name
        assert decay[id(parameter)] == (0.1 if matrix else 0.0), name
    assert set(decay.values()) == {0.0, 0.1}


def test_an_update_is_the_formula_of_the_paper():
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0]]))
    config = adamw.Config(learning_rate=0.1, weight_decay=0.5, betas=(0.9, 0.98), epsilon=1e-9)
    optimizer = adamw.build(config, [("weight", weight)])
    expected, first, second = weight.detach().clone().double(), 0.0, 0.0
    for step, gradient in enumerate(([[0.5, -1.0]], [[-0.2, 3.0]]), start=1):
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        g = torch.tensor(gradient).double()
        first, second = 0.9 * first + 0.1 * g, 0.98 * second + 0.02 * g**2
        expected = expected * (1 - 0.1 * 0.5)
        root = (second / (1 - 0.98**step)).sqrt() + 1e-9
        expected = expected - 0.1 * (first / (1 - 0.9**step)) / root
    torch.testing.assert_close(weight.detach().double(), expected, rtol=1e-5, atol=1e-6)
