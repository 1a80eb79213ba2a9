"""Gates close heads that are not worth their price; chosen heads are those of a masked model."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mt.compression import head_importance
from mt.config.plugins import plugin
from mt.data import collate
from mt.models.modules import head_gates, linear
from mt.models.modules.head_gates import Choice, HardConcrete, Router, gated
from mt.training.step import ModelWithLoss, accumulate_gradients

transformer, cross_entropy = plugin("models", "transformer"), plugin("objectives", "cross_entropy")
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


def built(vocabulary, **config):
    return transformer.build(transformer.Config(**{**SMALL, "dropout": 0.0, **config}), vocabulary)


def step_of(model, vocabulary, config):
    objective = cross_entropy.build(cross_entropy.Config(), model, vocabulary, None)
    return ModelWithLoss(
        model, gated(objective, model, transformer.Config(**SMALL, **config)), "fp32"
    )


def trained(step, steps, rate):
    optimizer = torch.optim.Adam(step.parameters(), rate)
    for number in range(steps):
        torch.manual_seed(number)
        optimizer.zero_grad()
        accumulate_gradients(step, step.objective, batches(32, 32, seed=number), NO_SCALER)
        optimizer.step()


def hidden(model, batch):
    return model.decode(batch.inputs, model.encode(batch.source))


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
    """Counts are told before; how an update is cut does not matter; nothing when validating."""
    for config in ({"kind": "topk", "heads": 2, "weight": 3.0}, {"kind": "hard_concrete"}):
        config = {"head_gates": config}
        step = step_of(built(vocabulary, **config), vocabulary, config)
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


# --------------------------------------------------------------------- a choice per sentence

TOPK = {"head_gates": {"kind": "topk", "heads": 2}}


@pytest.fixture(params=["pre", "post"])
def chosen(request, vocabulary):
    model = built(vocabulary, norm=request.param, **TOPK)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval().double()


def masked(chosen, vocabulary, batch):
    """The plain twin: all heads computed, those that a sentence has not chosen multiplied by 0.

    From here on no gradient flows through the choice, as none does through the masks.
    """
    model = built(vocabulary, norm="pre" if chosen.encoder[0].sublayers[0].before else "post")
    model = model.eval().double()
    model.load_state_dict(chosen.state_dict(), strict=False)
    made = {}

    def note(router, given, choices):
        fixed = [Choice(c.heads, c.weights.detach(), 4) for c in choices]
        made[router] = [torch.zeros(len(c.heads), 4).double().scatter(1, c.heads, c.weights)
                        for c in fixed]  # fmt: skip
        return fixed

    routers = (chosen.encoder_router, chosen.decoder_router)
    for router in routers:
        router.register_forward_hook(note)
    hidden(chosen, batch)
    parts = [layer.self_attention for layer in model.encoder]
    parts += [a for layer in model.decoder for a in (layer.self_attention, layer.cross_attention)]
    masks = [mask for router in routers for mask in made[router]]
    for part, mask in zip(parts, masks, strict=True):
        part.mask = mask
    return model, masks


def test_chosen_heads_are_those_of_a_masked_model(chosen, vocabulary):
    """In value and in gradient."""
    (batch,) = batches(12, 12)
    plain, masks = masked(chosen, vocabulary, batch)
    assert any(len({tuple(row) for row in (mask > 0).tolist()}) > 1 for mask in masks)
    torch.testing.assert_close(hidden(chosen, batch), hidden(plain, batch), rtol=1e-10, atol=1e-10)
    for model in (chosen, plain):
        hidden(model, batch).pow(2).sum().backward()
    named = dict(chosen.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(named[name].grad, parameter.grad, rtol=1e-8, atol=1e-8)


def test_packed_and_cached_decoding_with_chosen_heads_equals_full_decoding(chosen):
    if not linear.can_pack():
        pytest.skip("this torch has no packed products")
    (batch,) = batches(12, 12)
    model = chosen.float()
    with torch.inference_mode():
        expected = hidden(model, batch)
        for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 0.1)):
            linear.pack(model, dtype)
            memory = model.encode(batch.source)
            cache = model.start(memory, 1, batch.inputs.size(1))
            steps = [model.decode(token, memory, cache) for token in batch.inputs.split(1, dim=1)]
            found = torch.cat(steps, 1).float()
            torch.testing.assert_close(found, expected, rtol=bound, atol=bound)


def test_heads_that_are_not_chosen_are_not_computed(vocabulary):
    """Operations of the attentions alone: half of the heads, half of the operations."""
    (batch,) = batches(16, 16)
    counted = {}
    for name, config in (("all", {}), ("half", TOPK)):
        model = built(vocabulary, d_ff=1, **config).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            hidden(model, batch)
        per = counter.get_flop_counts()
        counted[name] = sum(sum(found.values()) for module, found in per.items()
                            if module.endswith("_attention"))  # fmt: skip
        total = sum(per["Global"].values())
        assert 0 < counted[name] <= total
    whole, half = counted["all"], counted["half"]
    if not (whole and half):
        pytest.skip("modules are not told apart")
    assert half == pytest.approx(whole / 2, rel=0.01)


def test_the_balance_evens_out_the_load():
    """A head that every sentence prefers loses some of them to the others."""
    router = Router(8, 2, 4, 1).train()
    router.linear.bias.data[[0, 5]] = 5.0
    states, valid = torch.randn(64, 3, 8), torch.ones(64, 3, dtype=torch.bool)
    most = []
    for _ in range(100):
        heads = torch.cat([choice.heads for choice in router(states, valid)], dim=1)
        most.append(int(max(each.bincount().max() for each in heads.unbind(dim=1))))
        router.zero_grad()
        total = router.balance()
        assert float(total.detach()) == 0
        (total / 64).backward()
        router.linear.bias.data -= 0.2 * router.linear.bias.grad
    assert most[0] == 64
    assert most[-1] < 24  # of 64 sentences over 4 heads


def test_the_choice_learns_from_the_loss():
    for k in (1, 2):
        router = Router(8, 1, 4, k)
        (choice,) = router(torch.randn(5, 3, 8), torch.ones(5, 3, dtype=torch.bool))
        torch.testing.assert_close(choice.weights.mean(dim=1), torch.ones(5))
        choice.weights[:, 0].sum().backward()
        assert float(router.linear.weight.grad.abs().sum()) > 0


def test_a_choice_that_some_sentences_leave_is_that_of_the_others():
    heads = torch.tensor([[0, 2], [1, 2], [0, 1]])
    choice = Choice(heads, torch.rand(3, 2), 4)
    assert choice.counts == [2, 2, 2, 0]
    assert choice.sentences.tolist() == [0, 2, 1, 2, 0, 1]
    x = torch.arange(6)  # pairs of a sentence and its head, in their own order
    assert torch.equal(x.index_select(0, choice.order).index_select(0, choice.places), x)
    kept = choice.keep(torch.tensor([0, 2]))
    assert torch.equal(kept.heads, heads[[0, 2]])
    assert kept.counts == [2, 1, 1, 0]


def test_empty_rows_that_fill_a_shape_have_no_load():
    router = Router(8, 1, 4, 2).train()
    states, valid = torch.rand(3, 5, 8), torch.tensor([[True] * 5, [True] * 5, [False] * 5])
    router(states, valid)
    assert float(router.loads.abs().sum()) > 0
    alone = Router(8, 1, 4, 2).train()
    alone.load_state_dict(router.state_dict())
    alone(states[:2], valid[:2])
    assert torch.equal(alone.loads, router.loads)


def test_only_a_model_that_chooses_heads_waits_for_the_device(vocabulary, chosen):
    assert chosen.waits
    assert not built(vocabulary, norm="pre", head_gates={"kind": "hard_concrete"}).waits


def test_what_topk_needs_is_told():
    for config in ({"kind": "topk"}, {"kind": "hard_concrete", "heads": 2}):
        with pytest.raises(ValueError, match=r"head_gates\.heads"):
            head_gates.Config(**config)
    with pytest.raises(ValueError, match="more than n_heads"):
        transformer.Config(**SMALL, head_gates={"kind": "topk", "heads": 5})


def test_a_model_without_gates_has_the_objective_as_it_is(vocabulary):
    model = built(vocabulary)
    objective = cross_entropy.build(cross_entropy.Config(), model, vocabulary, None)
    assert gated(objective, model, transformer.Config(**SMALL)) is objective
    assert gated(objective, model, object()) is objective
    assert copy.deepcopy(model) is not model
