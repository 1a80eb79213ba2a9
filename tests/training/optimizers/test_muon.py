"""Muon: which matrices it takes, and its update."""

from __future__ import annotations

import pytest
import torch
from optimizer_updates import built, made

from mt.training.optimizers import muon

# ----------------------------------------------------------------------------------- muon


def test_hidden_matrices_and_nothing_else_are_muons(vocabulary):
    step = made(vocabulary)
    optimizer = built("muon", step)
    names = {p: name for name, p in step.named_parameters()}
    hidden = {names[p] for p in optimizer.param_groups[0]["params"]}
    assert all("coder.0." in name and name.endswith("weight") for name in hidden)
    assert {p.ndim for p in optimizer.param_groups[0]["params"]} == {2}
    assert "model.target_embedding.weight" not in hidden
    assert any(name.endswith("self_attention.output.weight") for name in hidden)


def test_muon_equals_torchs_own():
    """One product for all matrices of a shape is one product a matrix, to rounding."""
    sizes = [(16, 24), (24, 16), (16, 16), (24, 16), (16, 24), (32, 8)]
    ours, theirs = (
        torch.nn.ModuleList(torch.nn.Linear(*size, bias=False) for size in sizes) for _ in range(2)
    )
    theirs.load_state_dict(ours.state_dict())
    first = built("muon", ours, learning_rate=0.02, weight_decay=0.1)
    second = torch.optim.Muon(
        theirs.parameters(), lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for number in range(3):
        torch.manual_seed(number)
        for mine, other in zip(ours, theirs, strict=True):
            mine.weight.grad = torch.randn_like(mine.weight)
            other.weight.grad = mine.weight.grad.clone()
        first.step()
        second.step()
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine.weight, other.weight, rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("model.encoder.0.self_attention.key_value.weight", 2),
        ("block.query_key_value.weight", 3),
        ("block.query.weight", 1),
        ("block.feed_forward.inner.weight", 1),
        ("weight", 1),
    ],
)
def test_stacked_matrices_are_counted_by_their_name(name, parts):
    assert muon.count_stacked(name) == parts


def test_stacked_matrices_are_orthogonalised_each_for_itself():
    """The update of keys is the same whether or not values stand below them."""
    both = torch.nn.ModuleDict({"key_value": torch.nn.Linear(16, 32, bias=False)})
    alone = torch.nn.ModuleDict({"key": torch.nn.Linear(16, 16, bias=False)})
    with torch.no_grad():
        alone["key"].weight.copy_(both["key_value"].weight[:16])
    both["key_value"].weight.grad = torch.randn(32, 16)
    alone["key"].weight.grad = both["key_value"].weight.grad[:16].clone()
    for module in (both, alone):
        built("muon", module, learning_rate=0.02).step()
    assert torch.equal(both["key_value"].weight[:16], alone["key"].weight)


def test_an_orthogonal_update_has_singular_values_near_one():
    module = torch.nn.Linear(32, 32, bias=False)
    before = module.weight.detach().clone()
    module.weight.grad = torch.randn(32, 32)
    optimizer = built("muon", module, learning_rate=1.0)
    optimizer.step()
    scale = 0.2 * 32**0.5  # the size of AdamW's updates
    values = torch.linalg.svdvals((before - module.weight).detach() / scale)
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.5
