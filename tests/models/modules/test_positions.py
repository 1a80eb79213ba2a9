"""Positions of the Transformer: rotary ones are relative, and each kind knows where it ends."""

from __future__ import annotations

import pytest
import torch

from mt.config.plugins import plugin
from mt.errors import ModelError
from mt.models.modules import linear
from mt.models.modules.positions import Rotary, sinusoids

transformer = plugin("models", "transformer")
SIZES = {"d_model": 16, "n_heads": 2, "d_ff": 32, "encoder_layers": 2, "decoder_layers": 2}


def make(vocabulary, positions, **more):
    config = transformer.Config(**{**SIZES, **more}, positions=positions)
    return transformer.build(config, vocabulary).eval()


@pytest.fixture
def pair():
    source, target = torch.randint(68, 90, (3, 6)), torch.randint(68, 90, (3, 5))
    source[1, 4:] = source[2, 1:] = 0
    return source, target


def test_rotary_turns_as_the_paper_writes_it():
    x = torch.randn(2, 7, 3 * 8, dtype=torch.double)
    found = Rotary(8, 4)(x, start=5)
    for position in range(7):
        for head in range(3):
            for i in range(4):  # the matrix of equation 15, block for block
                angle = torch.tensor((5 + position) * 10000 ** (-2 * i / 8))
                turn = torch.stack((
                    torch.stack((angle.cos(), -angle.sin())),
                    torch.stack((angle.sin(), angle.cos())),
                )).double()  # fmt: skip
                at = slice(8 * head + 2 * i, 8 * head + 2 * i + 2)
                torch.testing.assert_close(
                    found[:, position, at], x[:, position, at] @ turn.T, rtol=1e-5, atol=1e-5
                )


def shifted(monkeypatch, by):
    turn = Rotary.forward
    monkeypatch.setattr(Rotary, "forward", lambda self, x, start=0: turn(self, x, start + by))


def test_with_rotary_positions_only_distances_count(vocabulary, pair, monkeypatch):
    model, (source, target) = make(vocabulary, "rotary"), pair
    before = model(source, target)
    with monkeypatch.context() as patch:
        shifted(patch, 2000)  # past the table, too
        torch.testing.assert_close(model(source, target), before, rtol=1e-3, atol=1e-3)
    with monkeypatch.context() as patch:  # the law can fail: without them order counts nothing
        patch.setattr(Rotary, "forward", lambda self, x, start=0: x)
        assert not torch.allclose(model(source, target), before, rtol=1e-3, atol=1e-3)


def test_rotary_positions_are_of_self_attention_only(vocabulary):
    model = make(vocabulary, "rotary")
    turning = [name for name, module in model.named_modules() if getattr(module, "rotary", None)]
    assert len(turning) == 4
    assert all(name.endswith("self_attention") for name in turning)
    assert set(model.state_dict()) == set(make(vocabulary, "none").state_dict())


def cached(model, source, target):
    """A position at a time."""
    memory = model.encode(source)
    cache = model.start(memory, 1, target.size(1))
    return [model.decode(part, memory, cache) for part in target.split(1, dim=1)]


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_past_the_trained_length_positions_go_on(vocabulary, positions):
    short, long = (make(vocabulary, positions, max_length=n) for n in (4, 64))
    short.load_state_dict(long.state_dict())
    source, target = torch.randint(68, 90, (2, 20)), torch.randint(68, 90, (2, 20))
    expected = long(source, target)
    torch.testing.assert_close(short(source, target), expected)
    hidden, (weight, _) = cached(short, source, target), short.output()
    torch.testing.assert_close(torch.cat(hidden, 1) @ weight.T, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not linear.can_pack(), reason="this torch has no packed kernels")
def test_packed_weights_turn_too(vocabulary, pair):
    model, (source, target) = make(vocabulary, "rotary"), pair
    with torch.no_grad():
        plain = model(source, target)
        linear.pack(model, torch.float32)
        torch.testing.assert_close(model(source, target), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["source", "target", "cached"])
def test_a_learned_table_says_where_it_ends(vocabulary, side):
    model = make(vocabulary, "learned", max_length=8)
    fits, longer = torch.randint(68, 90, (1, 8)), torch.randint(68, 90, (1, 9))
    run = cached if side == "cached" else transformer.Transformer.forward
    run(model, fits, fits)
    pair = (longer, fits) if side == "source" else (fits, longer)
    with pytest.raises(ModelError, match="8 positions, 9 are asked for"):
        run(model, *pair)


def test_sinusoids_follow_section_3_5():
    table = sinusoids(50, 8)
    assert table[0].tolist() == [0, 1] * 4
    for position, i in ((1, 0), (7, 2), (49, 3)):
        angle = torch.tensor(position / 10000 ** (2 * i / 8))
        torch.testing.assert_close(table[position, 2 * i], angle.sin())
        torch.testing.assert_close(table[position, 2 * i + 1], angle.cos())
