"""Recurrent translators against the papers' equations written out, and fast ways against plain."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from gradients_of_sums import LENGTHS, close, gradients, valid_of
from torch import nn

from mt.config import recipe
from mt.config.plugins import plugin
from mt.errors import ConfigError
from mt.models.modules import linear, lstm
from mt.training.losses import linear_cross_entropy

rnn = plugin("models", "rnn")

KINDS = ("bahdanau", "dot", "none")


def make(vocabulary, attention, **more):
    config = rnn.Config(**{"d_model": 12, "units": 16, "dropout": 0.0, **more}, attention=attention)
    return rnn.build(config, vocabulary)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("additive", [True, False])
def test_attention_is_that_of_the_papers(rows, additive):
    """One sentence and one row of it at a time; `rows` of each sentence."""
    width = 5 if additive else 3
    queries = torch.randn(4 * rows, width, dtype=torch.double)
    keys = torch.randn(4, 6, 5, dtype=torch.double) if additive else None
    weight = torch.randn(5, dtype=torch.double) if additive else None
    states, valid = torch.randn(4, 6, 3, dtype=torch.double), valid_of([6, 5, 2, 1])
    source = lstm.source_of(states, valid, keys)
    contexts, weights = lstm.attend(source, queries, weight)
    assert weights.shape == (4, rows, 6)
    for row, query in enumerate(queries):
        b, n = row // rows, int(valid[row // rows].sum())
        real = states[b, :n]
        scores = (query + keys[b, :n]).tanh() @ weight if additive else real @ query
        close(weights[b, row % rows, :n], scores.softmax(0))
        close(contexts[row], scores.softmax(0) @ real)


def lstm_cell(layer, x, hidden, cell):
    """Equations of an LSTM, its fed inputs beside the state."""
    gates = layer.inputs(x) + layer.state(hidden)
    i, f, g, o = gates.chunk(4, dim=-1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def attended(scores, states, real):
    """The context of scores [B, S] over states [B, S, C]."""
    shares = scores.masked_fill(~real, -torch.inf).softmax(1)
    return (shares[..., None] * states).sum(1)


def as_written(model, kind, target, memory):
    """Hidden states [B, T, D] by the papers' equations, a word at a time."""
    decoder, states, real, found = model.decoder, memory.states, memory.valid, []
    ahead = torch.stack([states[b, n - 1, :8] for b, n in enumerate(real.sum(1))])
    back = states[:, 0, 8:]
    known = back if kind == "bahdanau" else torch.cat((ahead, back), dim=1)
    cells = list(decoder.first(known).chunk(decoder.layers, dim=1))
    hidden = [cell.tanh() for cell in cells]
    fed = torch.zeros(len(target), 12, dtype=states.dtype)
    for word in target.t():
        y, below = model.target_embedding(word) * 12**0.5, hidden[0]
        if kind == "bahdanau":
            inner = (decoder.query(hidden[0])[:, None] + decoder.key(states)).tanh()
            context = attended(inner @ decoder.score, states, real)
            below = torch.cat((below, context), dim=1)
        elif kind == "dot":
            below = torch.cat((below, fed), dim=1)
        hidden[0], cells[0] = lstm_cell(decoder.bottom, y, below, cells[0])
        for n, layer in enumerate(decoder.upper, start=1):
            hidden[n], cells[n] = lstm_cell(layer, hidden[n - 1], hidden[n], cells[n])
        top = hidden[-1]
        if kind == "bahdanau":
            pairs = decoder.readout(torch.cat((top, context, y), dim=1)).view(-1, 2, 12)
            found.append(pairs.amax(1))
        elif kind == "dot":
            context = attended((states * top[:, None]).sum(2), states, real)
            fed = decoder.readout(torch.cat((context, top), dim=1)).tanh()
            found.append(fed)
        else:
            found.append(decoder.readout(top))
    return torch.stack(found, dim=1)


@pytest.fixture
def pair():
    source, target = torch.randint(68, 90, (4, 7)), torch.randint(68, 90, (4, 6))
    source[~valid_of(LENGTHS)] = 0
    return source, target


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_is_what_its_paper_says_and_so_are_its_gradients(vocabulary, pair, kind, layers):
    model = make(vocabulary, kind, decoder_layers=layers).double()
    source, target = pair
    parameters = list(model.parameters())
    fast = model.decode(target, model.encode(source))
    plain = as_written(model, kind, target, model.encode(source))
    close(fast, plain)
    each = zip(gradients(fast, parameters), gradients(plain, parameters), strict=True)
    for (name, _), (ours, theirs) in zip(model.named_parameters(), each, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.skipif(not linear.can_pack(), reason="this torch has no packed kernels")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_packed_inference_is_the_model_whatever_the_rows(vocabulary, pair, kind, seed):
    torch.manual_seed(seed)
    model = make(vocabulary, kind, decoder_layers=2).eval()
    source, target = pair
    with torch.no_grad():
        plain = model.decode(target, model.encode(source))
        linear.pack(model, torch.float32)
        together = model.decode(target, model.encode(source))
        torch.testing.assert_close(together, plain, rtol=1e-4, atol=1e-5)
        alone = model.decode(target[:1], model.encode(source[:1]))
        assert torch.equal(alone, together[:1])


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_with_rows_added_has_about_the_gradient_of_fp32(vocabulary, kind):
    model = make(vocabulary, kind, decoder_layers=2)
    source, target = torch.randint(68, 90, (35, 6)), torch.randint(68, 90, (35, 5))
    source[20:, 4:] = 0
    found = []
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            hidden = model.decode(target, model.encode(source))
            assert hidden.shape == (35, 5, 12)
            loss = linear_cross_entropy(
                hidden.flatten(0, 1), *model.output(), target.roll(1, 1).flatten()
            )
        slopes = torch.autograd.grad(loss, list(model.parameters()))
        found.append(torch.cat([slope.flatten() for slope in slopes]))
    assert float(nn.functional.cosine_similarity(*found, dim=0)) > 0.999
    assert float(found[1].norm()) == pytest.approx(float(found[0].norm()), rel=0.02)


# ----------------------------------------------------------------------------- the model


@pytest.mark.parametrize("kind", ["bahdanau", "dot"])
def test_the_returned_attention_is_that_of_decoding(vocabulary, pair, kind):
    model = make(vocabulary, kind).eval().double()
    source, target = pair
    shares = model.attention(source, target)
    assert shares.shape == (4, 6, 7)
    torch.testing.assert_close(shares.sum(2), torch.ones(4, 6, dtype=torch.double))
    assert not shares.masked_select(~valid_of(LENGTHS)[:, None]).any()


def test_without_attention_there_is_no_alignment(vocabulary, pair):
    with pytest.raises(ConfigError, match=r"model\.attention"):
        make(vocabulary, "none").attention(*pair)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_to_write_a_sentence_backwards(vocabulary, kind):
    model = make(vocabulary, kind, d_model=24, units=32)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(3)
    for _ in range(100):
        source = torch.randint(70, 78, (32, 4), generator=generator)
        target = source.flip(1)
        inputs = torch.cat((torch.full((32, 1), 2), target[:, :-1]), dim=1)
        hidden = model.decode(inputs, model.encode(source)).flatten(0, 1)
        loss = linear_cross_entropy(hidden, *model.output(), target.flatten()) / target.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1.0  # knowing nothing costs log 8 = 2.1


def test_as_many_weights_as_the_transformer_can_be_had():
    sizes = []
    for name in ("small", "multi30k_rnn_en_de"):
        settled, _ = recipe.load(Path(__file__).parents[2] / "configs" / f"{name}.yaml")
        vocabulary = SimpleNamespace(joint=True, source_size=8000, target_size=8000)
        with torch.device("meta"):
            model = plugin("models", settled.model.kind).build(settled.model, vocabulary)
        sizes.append(sum(p.numel() for p in model.parameters()))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.03)
