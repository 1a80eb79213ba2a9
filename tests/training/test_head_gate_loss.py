"""The terms of head gates and routers keep the laws of objectives."""

from __future__ import annotations

import copy

import torch
from gated_models import (
    NO_SCALER,
    SMALL,
    batches,
    built,
    cross_entropy,
    mixture,
    step_of,
    transformer,
)

from mt.models.modules.head_gates import HardConcrete
from mt.training.head_gate_loss import add_head_gate_loss
from mt.training.step import accumulate_gradients


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


def test_a_model_without_gates_has_the_objective_as_it_is(vocabulary):
    model = built(vocabulary)
    objective = cross_entropy.build(cross_entropy.Config(), model, vocabulary, None)
    assert add_head_gate_loss(objective, model, transformer.Config(**SMALL)) is objective
    assert add_head_gate_loss(objective, model, object()) is objective
    assert copy.deepcopy(model) is not model
