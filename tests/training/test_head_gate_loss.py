"""The terms of head gates and routers keep the laws of objectives."""

from __future__ import annotations

import copy

from gated_models import (
    SMALL,
    assert_any_cut_is_the_same,
    batches,
    built,
    cross_entropy,
    mixture,
    step_of,
    transformer,
)

from mt.models.modules.head_gates import HardConcrete
from mt.training.head_gate_loss import add_head_gate_loss


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
        assert_any_cut_is_the_same(step)
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
