"""Hard-concrete gates: they close heads whose price is too high; laws of the gated objective."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from mt.compression import head_importance
from mt.config.plugins import plugin
from mt.data import collate
from mt.models.modules import head_gates
from mt.models.modules.head_gates import HardConcrete
from mt.training.head_gate_loss import add_head_gate_loss
from mt.training.step import ModelWithLoss, accumulate_gradients

transformer, mixture = plugin("models", "transformer"), plugin("models", "mixture_of_heads")
cross_entropy = plugin("objectives", "cross_entropy")
SMALL = {"d_model": 16, "n_heads": 4, "d_ff": 12, "encoder_layers": 2, "decoder_layers": 2}
NO_SCALER = torch.amp.GradScaler("cpu", enabled=False)


def batches(count, size, seed=1):
    """`count` pairs, of which the target repeats the source."""
    generator = np.random.default_rng(seed)
    texts = [np.append(generator.integers(68, 76, n), 3) for n in generator.integers(2, 8, count)]
    return [
        collate.to_batch(
            texts[i : i + size], texts[i : i + size], np.arange(len(texts))[i : i + size]
        )
        for i in range(0, count, size)
    ]


def built(vocabulary, module=transformer, **config):
    return module.build(module.Config(**{**SMALL, "dropout": 0.0, **config}), vocabulary)


def step_of(model, vocabulary, config, module=transformer):
    objective = cross_entropy.build(cross_entropy.Config(), model, vocabulary, None)
    return ModelWithLoss(
        model, add_head_gate_loss(objective, model, module.Config(**SMALL, **config)), "fp32"
    )


def trained(step, steps, rate):
    optimizer = torch.optim.Adam(step.parameters(), rate)
    for number in range(steps):
        torch.manual_seed(number)
        optimizer.zero_grad()
        accumulate_gradients(step, step.objective, batches(32, 32, seed=number), NO_SCALER)
        optimizer.step()


# ------------------------------------------------------------------------- gates that close


def test_a_gate_is_random_in_training_and_only_by_torchs_generator():
    gate = HardConcrete(1000)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(gate())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    gate.eval()
    assert torch.equal(gate(), torch.ones(1000))  # as a model without gates, at the start


@pytest.mark.parametrize("alpha", [-0.3, 0.0, 0.2])
def test_the_expected_number_of_open_gates_is_that_of_drawing(alpha):
    gate = HardConcrete(20000)
    gate.alpha.data.fill_(alpha)
    found = (gate() > 0).double().mean()
    assert float(gate.expected().detach()) / 20000 == pytest.approx(float(found), abs=0.01)
    assert 0 < float(found) < 1


def test_a_price_closes_heads_and_none_closes_none(vocabulary):
    left = {}
    for weight in (0.0, 0.5):
        config = {"head_gates": {"kind": "hard_concrete", "weight": weight}}
        torch.manual_seed(1)
        model = built(vocabulary, **config)
        trained(step_of(model, vocabulary, config), 40, rate=1.5e-2)
        found = head_importance.fold_gates(model)
        left[weight] = sum(int((each > 0).sum()) for each in found.values())
    assert left[0.0] == 24
    assert left[0.5] < 12


def test_a_gated_objective_keeps_the_laws_of_objectives(vocabulary):
    """`counts` gives the counts; the cut into micro-batches is free; validation adds nothing."""
    for module, config in (
        (mixture, {"heads_per_sentence": 2, "balance_weight": 3.0}),
        (transformer, {"head_gates": {"kind": "hard_concrete"}}),
    ):
        step = step_of(built(vocabulary, module, **config), vocabulary, config, module)
        for gate in step.model.modules():
            if isinstance(gate, HardConcrete):  # parts must draw the same
                gate.train = lambda mode=True: None
                gate.training = False
        found = []
        for size in (16, 4):
            step.zero_grad()
            loss = accumulate_gradients(step, step.objective, batches(16, size), NO_SCALER)
            found.append((loss, {n: p.grad.clone() for n, p in step.named_parameters()}))
        (one, whole), (two, parts) = found
        torch.testing.assert_close(one, two)
        for name in whole:
            torch.testing.assert_close(whole[name], parts[name], rtol=1e-4, atol=1e-6)
        (batch,) = batches(16, 16)
        told = step.objective.counts(batch)
        assert {term.name: int(term.count) for term in step(batch)} == {
            name: int(count) for name, count in told.items()
        }
        assert len(told) == 2
        assert (
            [term.name for term in step.eval()(batch)]
            == ["loss"]
            == [*step.objective.counts(batch)]
        )


def test_topk_in_a_recipe_names_the_model_kind_to_use():
    with pytest.raises(ValueError, match=r"model\.kind: mixture_of_heads"):
        head_gates.Config(kind="topk", heads=2)


def test_the_empty_heads_of_an_older_recipe_are_accepted_and_others_are_not():
    assert head_gates.Config(kind="hard_concrete", heads=None) == head_gates.Config(
        kind="hard_concrete"
    )
    with pytest.raises(ValueError, match="heads"):
        head_gates.Config(kind="hard_concrete", heads=2)


def test_a_model_without_gates_has_the_objective_as_it_is(vocabulary):
    model = built(vocabulary)
    objective = cross_entropy.build(cross_entropy.Config(), model, vocabulary, None)
    assert add_head_gate_loss(objective, model, transformer.Config(**SMALL)) is objective
    assert add_head_gate_loss(objective, model, object()) is objective
    assert copy.deepcopy(model) is not model
