"""Gradients in one buffer are those of the parameters, and stay there."""

from __future__ import annotations

import torch
from small_steps import made
from torch import nn

from mt.runtime.distributed import SINGLE
from mt.training.flat_gradients import ALIGNMENT, FlatGradients


def test_autograd_writes_to_the_buffer(vocabulary):
    module, plain = made(vocabulary), made(vocabulary)
    flat = FlatGradients(module.parameters())
    for step in (plain, module):
        sum(p.square().sum() for p in step.parameters()).backward()
    for own, other in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(own.grad, other.grad)
        assert own.grad.untyped_storage().data_ptr() == flat.buffer.untyped_storage().data_ptr()
        assert own.grad.storage_offset() % ALIGNMENT == 0
    norms = [p.grad.square().sum() for p in plain.parameters()]
    torch.testing.assert_close(flat.buffer.square().sum(), sum(norms))
    flat.sum_over_ranks(SINGLE)
    torch.optim.SGD(module.parameters(), lr=1).zero_grad(set_to_none=False)
    assert not flat.buffer.any()


def test_frozen_parameters_have_no_gradient():
    frozen = nn.Parameter(torch.ones(3), requires_grad=False)
    trained = nn.Parameter(torch.ones(5, 3))
    assert FlatGradients([frozen, trained]).buffer.numel() == ALIGNMENT
    assert frozen.grad is None
