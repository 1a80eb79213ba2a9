"""Linear maps with rows rounded up against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mt.linear import STEP, linear, rounded


@pytest.mark.parametrize("rows", [1, STEP - 1, STEP, STEP + 1])
@pytest.mark.parametrize("with_bias", [False, True])
def test_rounding_rows_up_changes_neither_product_nor_gradient(rows, with_bias):
    x = torch.randn(rows, 3, 32)
    weight, bias = torch.randn(16, 32), torch.randn(16) if with_bias else None
    results = []
    for function in (linear, F.linear):
        inputs = [None if t is None else t.clone().requires_grad_() for t in (x, weight, bias)]
        with torch.autocast("cpu", torch.bfloat16):
            y = function(*inputs)
        assert y.dtype == torch.bfloat16
        (y.float() ** 2).sum().backward()
        results.append([y.detach(), *(t.grad for t in inputs if t is not None)])
    for fast, plain in zip(*results, strict=True):
        assert fast.dtype == plain.dtype
        error = (fast - plain).float().norm() / plain.float().norm()
        assert error < 0.005  # bf16 sums of another order


def test_rounded_rows_are_a_multiple_and_the_rest_is_zero():
    found = rounded(torch.ones(5, 30, 8), torch.bfloat16)
    assert found.shape == (2 * STEP, 8)
    assert found.sum() == 5 * 30 * 8


def test_in_fp32_nothing_is_rounded():
    x, weight, bias = torch.randn(5, 8), torch.randn(4, 8), torch.randn(4)
    torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias), rtol=0, atol=0)
    assert rounded(x, torch.float32).shape == (5, 8)
