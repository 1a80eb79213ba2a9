"""The chunked loss against torch's own over all logits."""

from __future__ import annotations

import plain_losses
import pytest
import torch

from mt.training import losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("ignored", [None, 3])
def test_chunked_loss_and_gradients_equal_the_plain_ones(
    monkeypatch, smoothing, with_bias, ignored
):
    monkeypatch.setattr(losses, "CHUNK", 7)  # several chunks, the last one short
    hidden = torch.randn(23, 6, dtype=torch.float64)
    weight = torch.randn(11, 6, dtype=torch.float64)
    bias = torch.randn(11, dtype=torch.float64) if with_bias else None
    labels = torch.randint(0, 11, (23,))
    labels[5] = 3
    results = []
    for function in (losses.linear_cross_entropy, plain_losses.plain_cross_entropy):
        inputs = [
            t.clone().requires_grad_() if t is not None else None for t in (hidden, weight, bias)
        ]
        total = function(*inputs, labels, smoothing, ignored)
        (total * 0.25).backward()
        results.append([total.detach().double(), *(t.grad for t in inputs if t is not None)])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-6)


def test_bf16_loss_is_near_the_fp32_one():
    hidden, weight = torch.randn(50, 32), torch.randn(40, 32) * 0.2
    labels = torch.randint(0, 40, (50,))
    exact = plain_losses.plain_cross_entropy(hidden, weight, None, labels, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        near = losses.linear_cross_entropy(hidden, weight, None, labels, 0.1)
    assert near.dtype == torch.float32
    torch.testing.assert_close(near, exact, rtol=0.01, atol=0.1)


def test_without_gradients_the_loss_is_the_same():
    hidden, weight = torch.randn(9, 4), torch.randn(5, 4)
    labels = torch.randint(0, 5, (9,))
    with torch.inference_mode():
        quiet = losses.linear_cross_entropy(hidden, weight, None, labels)
    torch.testing.assert_close(
        quiet, plain_losses.plain_cross_entropy(hidden, weight, None, labels)
    )


# --------------------------------------------------------------------- of two passes at once


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("ignored", [None, 3])
def test_the_loss_of_two_passes_and_its_gradients_equal_the_plain_ones(
    monkeypatch, smoothing, with_bias, ignored
):
    monkeypatch.setattr(losses, "CHUNK", 14)  # several chunks, the last one short
    hidden = torch.randn(46, 6, dtype=torch.float64)
    weight = torch.randn(11, 6, dtype=torch.float64)
    bias = torch.randn(11, dtype=torch.float64) if with_bias else None
    labels = torch.randint(0, 11, (23,))
    labels[5] = 3
    results = []
    for function in (losses.linear_two_passes, plain_losses.plain_two_passes):
        inputs = [
            t.clone().requires_grad_() if t is not None else None for t in (hidden, weight, bias)
        ]
        total, apart = function(*inputs, labels, 5.0, smoothing, ignored)
        (total * 0.25).backward()
        found = [total.detach().double(), apart.double()]
        results.append([*found, *(t.grad for t in inputs if t is not None)])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-6)


def test_equal_passes_lie_nothing_apart_and_lose_twice_as_much():
    hidden, weight = torch.randn(9, 4), torch.randn(5, 4)
    labels = torch.randint(0, 5, (9,))
    total, apart = losses.linear_two_passes(hidden.repeat(2, 1), weight, None, labels, 5.0, 0.1)
    once = plain_losses.plain_cross_entropy(hidden, weight, None, labels, 0.1)
    torch.testing.assert_close(apart, torch.tensor(0.0), rtol=0, atol=1e-6)
    torch.testing.assert_close(total, 2 * once)


def test_bf16_loss_of_two_passes_is_near_the_fp32_one():
    hidden, weight = torch.randn(100, 32), torch.randn(40, 32) * 0.2
    labels = torch.randint(0, 40, (50,))
    exact = plain_losses.plain_two_passes(hidden, weight, None, labels, 1.0, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        near = losses.linear_two_passes(hidden, weight, None, labels, 1.0, 0.1)
    for one, other in zip(near, exact, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.2)
