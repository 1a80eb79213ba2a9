"""attend() against three lines of algebra, and dropout against its own law."""

from __future__ import annotations

import math

import pytest
import torch

from mt.models.modules.attention import attend, attention_weights, byte_dropout


def three_lines(query, key, value, visible):
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))
    scores[~visible.expand_as(scores)] = -math.inf
    return torch.exp(scores - scores.logsumexp(-1, keepdim=True)) @ value


@pytest.mark.parametrize("dropout", [0.0, 1e-9])  # the second takes the path with dropout
def test_attend_equals_softmax_over_real_keys(heads, dropout):
    query, key, value = heads
    valid = torch.arange(7) < torch.tensor([[7], [4], [1]])
    expected = three_lines(query, key, value, valid[:, None, None, :])
    torch.testing.assert_close(attend(query, key, value, valid, dropout=dropout), expected)


@pytest.mark.parametrize("queries", [1, 3, 5])
@pytest.mark.parametrize("dropout", [0.0, 1e-9])
def test_causal_queries_are_the_last_of_the_keys(queries, dropout):
    query = torch.randn(2, 2, queries, 8)
    key, value = torch.randn(2, 2, 2, 5, 8)
    visible = torch.arange(5) <= torch.arange(5 - queries, 5)[:, None]
    expected = three_lines(query, key, value, visible)
    torch.testing.assert_close(attend(query, key, value, causal=True, dropout=dropout), expected)


def test_weights_sum_to_one_and_are_zero_at_padding(heads):
    query, key, _ = heads
    valid = torch.arange(7) < torch.tensor([[7], [4], [1]])
    found = attention_weights(query, key, valid)
    torch.testing.assert_close(found.sum(-1), torch.ones(3, 2, 5, dtype=torch.float64))
    assert (found[~valid[:, None, None, :].expand_as(found)] == 0).all()


def test_dropout_keeps_the_mean_and_drops_the_share():
    x = torch.ones(400_000, requires_grad=True)
    y = byte_dropout(x, 0.3)
    assert abs((y == 0).float().mean().item() - 0.3) < 0.005  # 1/256 of rounding and noise
    assert abs(y.mean().item() - 1) < 0.005
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())  # the same elements, the same scale


def test_dropout_is_a_function_of_the_seed():
    x = torch.ones(1000)
    torch.manual_seed(7)
    first = byte_dropout(x, 0.1)
    torch.manual_seed(7)
    assert torch.equal(first, byte_dropout(x, 0.1))
    assert not torch.equal(first, byte_dropout(x, 0.1))


def test_every_byte_of_dropout_is_uniform():
    """Were one of the eight bytes of a random word narrower, its elements would drop more often."""
    share = (byte_dropout(torch.ones(80_000, 8), 0.5) == 0).float().mean(0)
    assert (share - 0.5).abs().max() < 0.01
