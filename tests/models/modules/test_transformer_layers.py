"""Residual sublayers, checks of sizes and the first weights of a Transformer."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mt.config.plugins import plugin
from mt.models.modules.transformer_layers import Sublayer, TransformerConfig

transformer = plugin("models", "transformer")
SIZES = {"d_model": 16, "n_heads": 2, "d_ff": 32, "encoder_layers": 2, "decoder_layers": 1}


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_sublayer_is_a_residual_connection_with_its_norm(norm):
    sublayer = Sublayer(SimpleNamespace(norm=norm, norm_kind="layer", d_model=8, dropout=0.0))
    x, double = torch.randn(2, 3, 8), lambda x: 2 * x
    plain = nn.functional.layer_norm
    expected = x + 2 * plain(x, (8,)) if norm == "pre" else plain(3 * x, (8,))
    torch.testing.assert_close(sublayer(x, double), expected)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_heads": 3}, "not divisible by n_heads"),
        ({"positions": "learned"}, "needs max_length"),
        ({"d_model": 15, "n_heads": 3}, "must be even"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(sizes, message):
    TransformerConfig(kind="any", **SIZES)
    with pytest.raises(ValueError, match=message):
        TransformerConfig(kind="any", **{**SIZES, **sizes})


def test_first_weights_have_the_deviation_of_their_kind(vocabulary):
    model = transformer.build(transformer.Config(**{**SIZES, "d_model": 64}), vocabulary)
    assert model.target_embedding.weight.std().item() == pytest.approx(64**-0.5, rel=0.1)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            assert not module.bias.any(), name
            for part in module.weight.chunk(2 if name.endswith("key_value") else 1):
                bound = (6 / sum(part.shape)) ** 0.5
                assert 0.9 * bound < part.abs().max().item() <= bound, name


def test_blocks_are_every_layer_once(vocabulary):
    model = transformer.build(transformer.Config(**SIZES), vocabulary)
    assert [*map(id, model.blocks())] == [*map(id, [*model.encoder, *model.decoder])]
