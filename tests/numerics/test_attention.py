"""attend() against three lines of algebra, and dropout against its own law."""

from __future__ import annotations

import math

import pytest
import torch

from mt.models.modules.attention import attend, attention_weights, byte_dropout
from mt.models.modules.kv_cache import KeyValueCache


def three_lines(query, key, value, visible):
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))
    scores[~visible.expand_as(scores)] = -math.inf
    return torch.exp(scores - scores.logsumexp(-1, keepdim=True)) @ value


@pytest.fixture
def heads():
    return [torch.randn(3, 2, length, 8, dtype=torch.float64) for length in (5, 7, 7)]


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


@pytest.mark.parametrize(("beams", "steps"), [(1, 9), (3, 30), (5, 40)])
def test_a_cache_attends_to_what_each_beam_decoded_and_to_its_source(beams, steps):
    """Reordered, dropped and fed several tokens at once, against histories kept one by one."""
    generator = torch.Generator().manual_seed(beams)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    sentences, heads, width, length = 4, 2, 8, 6
    valid = torch.arange(length) < torch.tensor([[6], [3], [1], [5]])
    source = [(draw(sentences, heads, length, width), draw(sentences, heads, length, width))]
    cache = KeyValueCache(source, valid, beams, steps + 3)
    known = torch.arange(sentences)  # which sentences are left
    histories = [[[] for _ in range(beams)] for _ in range(sentences)]
    most = 0
    for step in range(steps):
        fed = 1 if step == 0 else beams
        tokens = 3 if step == 4 else 1
        rows = len(known) * fed
        query, key, value = (draw(rows, tokens, heads, width) for _ in range(3))
        found = cache.attend(0, query, key, value).unflatten(-1, (heads, width))
        across = cache.attend_source(0, query).unflatten(-1, (heads, width))
        cache.advance(rows, tokens)
        most = max(most, cache.filled)
        for row in range(rows):
            sentence, beam = divmod(row, fed)
            past = histories[known[sentence]]
            for n in range(beams) if fed == 1 else [beam]:
                past[n] = past[n] + list(zip(key[row], value[row], strict=True))
            for t in range(tokens):
                held = past[beam][: len(past[beam]) - tokens + t + 1]
                keys, values = (torch.stack(each, dim=1)[None] for each in zip(*held, strict=True))
                wanted = attend(query[row, t][None, :, None], keys, values)
                torch.testing.assert_close(found[row, t], wanted[0, :, 0])
            k, v = (each[known[sentence], None] for each in source[0])
            wanted = attend(query[row][None].transpose(1, 2), k, v, valid[known[sentence], None])
            torch.testing.assert_close(across[row], wanted[0].transpose(0, 1))
        if step == 7:
            left = torch.tensor([0, 2, 3])
            cache.select_sentences(left)
            known = known[left]
        if beams > 1:
            origins = torch.randint(0, beams, (len(known), beams), generator=generator)
            cache.reorder((origins + beams * torch.arange(len(known))[:, None]).flatten())
            for sentence, row in zip(known.tolist(), origins.tolist(), strict=True):
                histories[sentence] = [histories[sentence][n] for n in row]
    if beams > 1:
        assert most < 0.8 * beams * steps, "no dead cell was dropped"
