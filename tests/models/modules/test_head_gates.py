"""Hard-concrete gates: they close heads whose price is too high; laws of the gated objective."""

from __future__ import annotations

import pytest
import torch
from gated_models import (
    NO_SCALER,
    batches,
    built,
    step_of,
)

from mt.compression import head_importance
from mt.models.modules import head_gates
from mt.models.modules.head_gates import HardConcrete
from mt.training.step import accumulate_gradients


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


def test_topk_in_a_recipe_names_the_model_kind_to_use():
    with pytest.raises(ValueError, match=r"model\.kind: mixture_of_heads"):
        head_gates.Config(kind="topk", heads=2)


def test_the_empty_heads_of_an_older_recipe_are_accepted_and_others_are_not():
    assert head_gates.Config(kind="hard_concrete", heads=None) == head_gates.Config(
        kind="hard_concrete"
    )
    with pytest.raises(ValueError, match="heads"):
        head_gates.Config(kind="hard_concrete", heads=2)
