"""Routers and selections of heads."""

from __future__ import annotations

import torch

from mt.models.modules.mixture_of_heads import HeadRouter, HeadSelection


def test_the_balance_term_balances_the_load():
    """A head that every sentence prefers loses some of them to the others."""
    router = HeadRouter(8, 2, 4, 1).train()
    router.linear.bias.data[[0, 5]] = 5.0
    states, valid = torch.randn(64, 3, 8), torch.ones(64, 3, dtype=torch.bool)
    most = []
    for _ in range(100):
        heads = torch.cat([selection.heads for selection in router(states, valid)], dim=1)
        most.append(int(max(each.bincount().max() for each in heads.unbind(dim=1))))
        router.zero_grad()
        total = router.balance()
        assert float(total.detach()) == 0
        (total / 64).backward()
        router.linear.bias.data -= 0.2 * router.linear.bias.grad
    assert most[0] == 64
    assert most[-1] < 24  # of 64 sentences over 4 heads


def test_the_router_learns_from_the_loss():
    for k in (1, 2):
        router = HeadRouter(8, 1, 4, k)
        (selection,) = router(torch.randn(5, 3, 8), torch.ones(5, 3, dtype=torch.bool))
        torch.testing.assert_close(selection.weights.mean(dim=1), torch.ones(5))
        selection.weights[:, 0].sum().backward()
        assert float(router.linear.weight.grad.abs().sum()) > 0


def test_a_selection_without_some_sentences_is_that_of_the_others():
    heads = torch.tensor([[0, 2], [1, 2], [0, 1]])
    selection = HeadSelection(heads, torch.rand(3, 2), 4)
    assert selection.counts == [2, 2, 2, 0]
    assert selection.sentences.tolist() == [0, 2, 1, 2, 0, 1]
    pairs = torch.arange(6)  # of a sentence and a head, in their own order
    assert torch.equal(pairs[selection.order][selection.places], pairs)
    kept = selection.select_sentences(torch.tensor([0, 2]))
    assert torch.equal(kept.heads, heads[[0, 2]])
    assert kept.counts == [2, 1, 1, 0]


def test_empty_rows_that_fill_a_shape_have_no_load():
    router = HeadRouter(8, 1, 4, 2).train()
    states, valid = torch.rand(3, 5, 8), torch.tensor([[True] * 5, [True] * 5, [False] * 5])
    router(states, valid)
    assert float(router.loads.abs().sum()) > 0
    alone = HeadRouter(8, 1, 4, 2).train()
    alone.load_state_dict(router.state_dict())
    alone(states[:2], valid[:2])
    assert torch.equal(alone.loads, router.loads)
