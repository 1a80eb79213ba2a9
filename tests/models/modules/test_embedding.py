"""Laws of word dropout: whole words are hidden, in training only, and nothing else is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mt.models import rnn, transformer
from mt.models.modules.embedding import WordDropout
from mt.special_tokens import END, FIRST_PIECE, PAD, UNK


@pytest.fixture
def table():
    table = nn.Embedding(90, 8)
    nn.init.uniform_(table.weight, 1, 2)  # no embedding is zero by chance
    return table


IDS = torch.arange(FIRST_PIECE, 90).repeat(50, 40)  # [50, 880]


def test_in_evaluation_nothing_is_hidden(table):
    words = WordDropout(0.5, "zero").eval()
    assert torch.equal(words(table, IDS), table(IDS))


def test_a_probability_of_zero_uses_no_randomness(table):
    """Else a run without it would have another dropout than it had before there was any."""
    before = torch.get_rng_state()
    assert torch.equal(WordDropout(0.0, "zero")(table, IDS), table(IDS))
    assert torch.equal(torch.get_rng_state(), before)


def test_words_are_hidden_whole_and_the_others_scaled_up(table):
    found, whole = WordDropout(0.2, "zero")(table, IDS), table(IDS)
    hidden = (found == 0).all(-1)
    torch.testing.assert_close(found, torch.where(hidden[..., None], 0.0, whole / 0.8))
    assert hidden.float().mean() == pytest.approx(0.2, abs=0.02)
    assert float(found.mean().detach()) == pytest.approx(float(whole.mean().detach()), rel=0.02)


def test_words_become_unknown(table):
    found = WordDropout(0.2, "unk")(table, IDS)
    hidden = (found == table.weight[UNK]).all(-1)
    torch.testing.assert_close(found[~hidden], table(IDS)[~hidden])
    assert hidden.float().mean() == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("by", ["zero", "unk"])
def test_what_is_no_text_is_always_shown(table, by):
    ids = torch.arange(FIRST_PIECE).repeat(50, 1)
    assert {PAD, UNK, END} <= set(ids[0].tolist())
    assert torch.equal(WordDropout(0.9, by)(table, ids), table(ids))


SIZES = {
    transformer: {"n_heads": 2, "d_ff": 16, "encoder_layers": 1, "decoder_layers": 1},
    rnn: {"units": 8, "encoder_layers": 1, "decoder_layers": 1},
}


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("kind", [transformer, rnn], ids=["transformer", "rnn"])
def test_each_side_of_a_model_has_its_own(vocabulary, kind, side):
    values = {"d_model": 16, "dropout": 0.0, **SIZES[kind]}
    model = kind.build(kind.Config(**values, word_dropout={side: 0.5}), vocabulary)
    plain = kind.build(kind.Config(**values), vocabulary)
    plain.load_state_dict(model.state_dict())
    source, target = torch.randint(FIRST_PIECE, 90, (2, 4, 9))
    memory, shown = model.encode(source), plain.encode(source)
    assert torch.equal(memory.states, shown.states) == (side == "target")
    decoded = model.decode(target, shown), plain.decode(target, shown)
    assert torch.equal(*decoded) == (side == "source")
    model.eval(), plain.eval()
    assert torch.equal(model.encode(source).states, plain.encode(source).states)
    assert torch.equal(model.decode(target, shown), plain.decode(target, shown))
