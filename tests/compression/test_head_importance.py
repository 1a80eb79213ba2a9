"""Pruned models are the masked ones, only smaller; what is important is found."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from mt.checkpoints import checkpoint
from mt.compression import head_importance
from mt.config.plugins import plugin
from mt.data import collate
from mt.models.modules import linear

transformer = plugin("models", "transformer")
SMALL = {"d_model": 16, "n_heads": 4, "d_ff": 12, "encoder_layers": 2, "decoder_layers": 3}


@pytest.fixture(params=[{}, {"norm": "pre", "activation": "swiglu"}], ids=["post", "pre"])
def model(request, vocabulary):
    """Its biases are drawn, too, so that one that goes astray is noticed."""
    made = transformer.build(transformer.Config(**SMALL, **request.param), vocabulary).eval()
    for name, parameter in made.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return made.double()


@pytest.fixture
def batch():
    generator = np.random.default_rng(1)
    pairs = [[np.append(generator.integers(68, 90, n), 3) for n in both]
             for both in generator.integers(1, 9, (12, 2))]  # fmt: skip
    return collate.to_batch([s for s, _ in pairs], [t for _, t in pairs], np.arange(12))


def hidden(model, batch):
    return model.decode(batch.inputs, model.encode(batch.source))


def built(model, vocabulary, **config):
    """A model of the config that a pruned one tells, with its weights: nothing else is needed."""
    config = transformer.Config(**{**SMALL, **config, **head_importance.layer_sizes(model)})
    fresh = transformer.build(config, vocabulary).eval().double()
    checkpoint.load_into(fresh, checkpoint.model_weights(model), "pruned")
    return fresh


def pre(model):
    return {"norm": "pre", "activation": "swiglu"} if model.encoder[0].feed_forward.gate else {}


def of_heads(model, batch):
    return head_importance.measure_importance(model, head_importance.attentions(model), [batch])


def of_columns(model, batch):
    return head_importance.measure_importance(model, head_importance.feed_forwards(model), [batch])


@pytest.mark.parametrize("uneven", [False, True])
def test_a_pruned_model_is_the_masked_model(model, batch, vocabulary, uneven):
    """Heads and columns: as with masks of 0 in the whole model; and the cache, and packed."""
    heads = head_importance.heads_to_keep(of_heads(model, batch), 0.5, uneven)
    columns = head_importance.columns_to_keep(of_columns(model, batch), 0.25)
    small = copy.deepcopy(model)
    for name, part in {
        **head_importance.attentions(model),
        **head_importance.feed_forwards(model),
    }.items():
        kept = heads[name] if name in heads else columns[name]
        width = part.n_heads if name in heads else part.outer.in_features
        part.mask = torch.zeros(width, dtype=torch.double).index_fill(0, kept, 1.0)
    for name, attention in head_importance.attentions(small).items():
        head_importance.keep_heads(attention, heads[name])
    for name, layer in head_importance.feed_forwards(small).items():
        head_importance.keep_columns(layer, columns[name])
    counts = {len(kept) for kept in heads.values()}
    assert (counts == {2}) != uneven
    assert {len(kept) for kept in columns.values()} == {9}
    expected = hidden(model, batch)
    torch.testing.assert_close(hidden(small, batch), expected, rtol=1e-10, atol=1e-10)
    fresh = built(small, vocabulary, **pre(model))
    torch.testing.assert_close(hidden(fresh, batch), expected, rtol=1e-10, atol=1e-10)
    memory = fresh.encode(batch.source)
    cache = fresh.start(memory, 1, batch.inputs.size(1))
    steps = [fresh.decode(token, memory, cache) for token in batch.inputs.split(1, dim=1)]
    torch.testing.assert_close(torch.cat(steps, 1), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("config", [{"n_heads": 2, "d_head": 4}, {
    "layer_heads": {"encoder": [1, 3], "decoder": [2, 1, 1], "cross": [3, 2, 4]}}])  # fmt: skip
def test_packed_and_cached_decoding_of_a_pruned_model_equals_full_decoding(
    batch, vocabulary, config
):
    if not linear.can_pack():
        pytest.skip("this torch has no packed products")
    model = transformer.build(transformer.Config(**{**SMALL, **config}), vocabulary).eval()
    with torch.inference_mode():
        expected = hidden(model, batch)
        for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 0.1)):
            linear.pack(model, dtype)
            memory = model.encode(batch.source)
            cache = model.start(memory, 1, batch.inputs.size(1))
            steps = [model.decode(token, memory, cache) for token in batch.inputs.split(1, dim=1)]
            found = torch.cat(steps, 1).float()
            torch.testing.assert_close(found, expected, rtol=bound, atol=bound)


def test_importance_finds_a_head_and_a_column_that_are_of_no_use(model, batch):
    attention = model.decoder[1].cross_attention
    attention.output.weight.data[:, 4:8] = 0  # head 1
    model.encoder[0].feed_forward.outer.weight.data[:, 5] = 0
    found = of_heads(model, batch)
    useless = found["decoder.1.cross_attention"]
    assert float(useless[1]) == 0
    assert float(useless.norm()) == pytest.approx(1)
    assert int(of_columns(model, batch)["encoder.0.feed_forward"].argmin()) == 5
    kept = head_importance.heads_to_keep(found, 0.25, uneven=False)["decoder.1.cross_attention"]
    assert kept.tolist() == [0, 2, 3]
    (gone,) = [  # of all heads the least important one
        (name, set(range(4)) - set(kept.tolist()))
        for name, kept in head_importance.heads_to_keep(found, 1 / 32, uneven=True).items()
        if len(kept) < 4
    ]
    assert gone == ("decoder.1.cross_attention", {1})


def test_importance_is_the_mean_over_sentences_of_the_slope(model, batch):
    """As one sentence and one head at a time tell, by finite differences."""
    found = of_heads(model, batch)
    name, step = "encoder.1.self_attention", 1e-5
    attention = head_importance.attentions(model)[name]
    slopes = torch.zeros(12, 4)
    for head in range(4):
        totals = []
        for sign in (1, -1):
            attention.mask = torch.ones(4).double()
            attention.mask[head] += sign * step
            logits = hidden(model, batch) @ model.output()[0].T
            gains = logits.log_softmax(-1).gather(2, batch.labels[..., None])[..., 0]
            totals.append(-(gains * (batch.labels > 0)).sum(1))
        slopes[:, head] = (totals[0] - totals[1]) / (2 * step)
    attention.mask = None
    felt = slopes.abs().sum(0)
    torch.testing.assert_close(found[name], felt / felt.norm(), rtol=1e-3, atol=1e-3)


def test_importance_leaves_the_model_as_it_was(model, batch):
    model.train()
    before = hidden(copy.deepcopy(model).eval(), batch)
    of_heads(model, batch)
    of_columns(model, batch)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(hidden(model.eval(), batch), before)


def test_one_head_of_each_attention_is_kept(model, batch):
    scores = of_heads(model, batch)
    for uneven in (False, True):
        kept = head_importance.heads_to_keep(scores, 0.99, uneven)
        assert {len(each) for each in kept.values()} == {1}
        assert all(int(each) == int(scores[name].argmax()) for name, each in kept.items())


def test_the_layer_that_does_nothing_is_the_one_that_goes(batch, vocabulary):
    model = transformer.build(transformer.Config(**SMALL, norm="pre"), vocabulary).eval()
    idle = model.decoder[1]
    for part in (idle.self_attention, idle.cross_attention, idle.feed_forward):
        last = getattr(part, "output", None) or part.outer
        torch.nn.init.zeros_(last.weight)
    optimizer = torch.optim.Adam([p for n, p in model.named_parameters() if ".1." not in n], 1e-2)
    for _ in range(30):  # so that the others do something
        optimizer.zero_grad()
        head_importance._total_loss(model, batch).backward()
        optimizer.step()
    expected = hidden(model, batch)
    assert head_importance.remove_layers(model, "decoder", 2, [batch]) == [0, 2]
    assert torch.equal(hidden(model, batch), expected)
    assert len(model.decoder) == 2


def test_gates_are_folded_into_what_follows(batch, vocabulary):
    config = transformer.Config(**SMALL, head_gates={"kind": "hard_concrete"})
    model = transformer.build(config, vocabulary).eval()
    for number, attention in enumerate(head_importance.attentions(model).values()):
        attention.gates.alpha.data = torch.tensor([0.5, -0.1, -0.9, 0.05 * (number - 4)])
    expected = hidden(model, batch)
    gates = head_importance.fold_gates(model)
    torch.testing.assert_close(hidden(model, batch), expected)
    assert all(
        float(each[2]) == 0 < float(each[1]) < 1 == float(each[0]) for each in gates.values()
    )
    for uneven in (True, False):
        small = copy.deepcopy(model)
        for name, heads in head_importance.heads_with_open_gates(gates, uneven).items():
            head_importance.keep_heads(head_importance.attentions(small)[name], heads)
        torch.testing.assert_close(hidden(small, batch), expected)
        assert ("layer_heads", None) in head_importance.layer_sizes(small).items()
        torch.testing.assert_close(
            hidden(built(small.double(), vocabulary), batch).float(), expected
        )


def test_an_attention_whose_gates_are_all_closed_keeps_one(batch, vocabulary):
    gates = {"a": torch.tensor([0.0, 0.0]), "b": torch.tensor([0.2, 0.0])}
    kept = head_importance.heads_with_open_gates(gates, uneven=True)
    assert [each.tolist() for each in kept.values()] == [[0], [0]]


@pytest.mark.parametrize(("text", "share"), [("50%", 0.5), ("12.5%", 0.125), ("0%", 0.0)])
def test_a_share_is_read(text, share):
    from mt.compression import prune

    assert prune.parse_request(text, None, None, False) == prune.PruneRequest(heads=share)
    assert replace(prune.parse_request(None, text, None, True), uneven=False) == prune.PruneRequest(
        columns=share
    )
