"""Laws of the optimizers in mt/optimizers, and of each one's own."""

from __future__ import annotations

import pytest
import torch

from mt.checkpoints import checkpoint, train_state
from mt.config.plugins import plugin, plugins
from mt.models import transformer
from mt.training.objectives import cross_entropy
from mt.training.optimizers import muon
from mt.training.step import ModelWithLoss, set_rate, set_rate_factors


def made(vocabulary, seed=1):
    torch.manual_seed(seed)
    config = transformer.Config(
        d_model=16, n_heads=2, d_ff=32, encoder_layers=1, decoder_layers=1, dropout=0
    )
    model = transformer.build(config, vocabulary)
    return ModelWithLoss(model, cross_entropy.CrossEntropy(model, 0.1), "fp32")


def built(kind, step, **settings):
    module = plugin("optimizers", kind)
    return module.build(module.Config(**settings), list(step.named_parameters()))


def updates(step, optimizer, first, last):
    for number in range(first, last):
        generator = torch.Generator().manual_seed(number)
        for parameter in step.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        set_rate(optimizer, 0.01 / (1 + number))
        optimizer.step()


@pytest.mark.parametrize("kind", plugins("optimizers"))
def test_stopped_and_restored_equals_uninterrupted(kind, vocabulary, tmp_path):
    whole = made(vocabulary)
    updates(whole, built(kind, whole, weight_decay=0.1), 0, 6)
    step = made(vocabulary)
    optimizer = built(kind, step, weight_decay=0.1)
    updates(step, optimizer, 0, 3)
    tensors = checkpoint.training_tensors(step, None, optimizer)
    state = train_state.TrainState(step=3)
    folder = checkpoint.save_checkpoint(tmp_path, "step-00000003", step.model, state, {}, tensors)
    step = made(vocabulary, seed=2)
    optimizer = built(kind, step, weight_decay=0.1)
    checkpoint.restore_training(folder, step, None, optimizer)
    updates(step, optimizer, 3, 6)
    for (name, a), b in zip(whole.named_parameters(), step.parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("kind", plugins("optimizers"))
def test_every_parameter_is_updated_once_and_as_the_rate_says(kind, vocabulary):
    step = made(vocabulary)
    optimizer = built(kind, step)
    grouped = [p for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, grouped)) == sorted(map(id, step.parameters()))
    before = [p.detach().clone() for p in step.parameters()]
    updates(step, optimizer, 0, 1)
    assert not any(torch.equal(a, b) for a, b in zip(before, step.parameters(), strict=True))
    before = [p.detach().clone() for p in step.parameters()]
    set_rate(optimizer, 0.0)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, step.parameters(), strict=True))


@pytest.mark.parametrize("kind", plugins("optimizers"))
def test_a_parameter_may_have_a_part_of_the_rate(kind, vocabulary):
    """A rate of 0 leaves alone what has it; factor 1 for all changes nothing."""
    plain, scaled, frozen = (made(vocabulary) for _ in range(3))
    for step, other in ((scaled, 1.0), (frozen, 0.0)):
        named = dict(step.named_parameters())
        factors = {name: other if "decoder.0" in name else 1.0 for name in named}
        optimizer = built(kind, step)
        set_rate_factors(optimizer, named, factors)
        updates(step, optimizer, 0, 2)
    updates(plain, built(kind, plain), 0, 2)
    before = dict(made(vocabulary).named_parameters())
    for (name, a), b, c in zip(
        plain.named_parameters(), scaled.parameters(), frozen.parameters(), strict=True
    ):
        assert torch.equal(a, b), name
        assert torch.equal(c, before[name] if "decoder.0" in name else a), name


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


def test_muon_equals_torchs_own_on_a_single_matrix():
    ours, theirs = (torch.nn.Linear(24, 16, bias=False) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    first = built("muon", ours, learning_rate=0.02, weight_decay=0.1)
    second = torch.optim.Muon(
        theirs.parameters(), lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for number in range(3):
        torch.manual_seed(number)
        ours.weight.grad = torch.randn(16, 24)
        theirs.weight.grad = ours.weight.grad.clone()
        first.step()
        second.step()
        assert torch.equal(ours.weight, theirs.weight)


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
