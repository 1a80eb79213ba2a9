"""Our Transformer against torch.nn.Transformer with the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mt.models import transformer
from mt.models.modules.positions import sinusoids


def copy_attention(ours, theirs):
    """torch keeps query, key and value in one matrix."""
    theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
    theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
    theirs.out_proj.weight.copy_(ours.output.weight)
    theirs.out_proj.bias.copy_(ours.output.bias)


def copy_layer(ours, theirs):
    copy_attention(ours.self_attention, theirs.self_attn)
    if hasattr(ours, "cross_attention"):
        copy_attention(ours.cross_attention, theirs.multihead_attn)
    theirs.linear1.load_state_dict(ours.feed_forward.inner.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.outer.state_dict())
    for number, sublayer in enumerate(ours.sublayers, start=1):
        getattr(theirs, f"norm{number}").load_state_dict(sublayer.norm.state_dict())


@torch.no_grad()
def torch_twin(model, norm, activation):
    """A torch.nn.Transformer with `model`'s weights."""
    twin = nn.Transformer(
        16, 4, 2, 3, 32, 0.0, activation, batch_first=True, norm_first=norm == "pre"
    )
    for ours, theirs in zip(model.encoder, twin.encoder.layers, strict=True):
        copy_layer(ours, theirs)
    for ours, theirs in zip(model.decoder, twin.decoder.layers, strict=True):
        copy_layer(ours, theirs)
    if norm == "pre":
        twin.encoder.norm.load_state_dict(model.encoder_norm.state_dict())
        twin.decoder.norm.load_state_dict(model.decoder_norm.state_dict())
    else:  # torch normalises once more after the stacks; the paper does not
        twin.encoder.norm = twin.decoder.norm = None
    return twin


def joined_gradient(attention):
    return torch.cat([attention.query.weight.grad, attention.key_value.weight.grad])


def close(ours, theirs):
    """Torch's attention kernels take their exponentials to seven digits, even in fp64."""
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_forward_and_gradients_equal_torchs_transformer(vocabulary, norm, activation):
    config = transformer.Config(
        d_model=16, n_heads=4, d_ff=32, encoder_layers=2, decoder_layers=3, dropout=0,
        norm=norm, activation=activation,
    )  # fmt: skip
    model = transformer.build(config, vocabulary).double()
    for parameter in model.parameters():  # biases and norms too must be told apart
        nn.init.normal_(parameter, std=0.3)
    twin = torch_twin(model, norm, activation).double()
    source, target = torch.randint(4, 90, (3, 6)), torch.randint(4, 90, (3, 5))
    source[1, 4:] = source[2, 1:] = 0
    ignored = source == 0

    ours = model.decode(target, model.encode(source))

    def embed(ids):
        table = nn.functional.embedding(ids, model.target_embedding.weight) * 4
        return table + sinusoids(ids.size(1), 16).double()

    future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    theirs = twin(
        embed(source), embed(target), tgt_mask=future,
        src_key_padding_mask=ignored, memory_key_padding_mask=ignored,
    )  # fmt: skip
    close(ours, theirs)

    slope = torch.randn_like(ours)
    ours.backward(slope)
    embedding = model.target_embedding.weight.grad.clone()
    model.target_embedding.weight.grad = None
    theirs.backward(slope)
    close(embedding, model.target_embedding.weight.grad)
    for mine, other in zip(model.decoder, twin.decoder.layers, strict=True):
        close(mine.feed_forward.inner.weight.grad, other.linear1.weight.grad)
        close(joined_gradient(mine.cross_attention), other.multihead_attn.in_proj_weight.grad)
    for mine, other in zip(model.encoder, twin.encoder.layers, strict=True):
        close(joined_gradient(mine.self_attention), other.self_attn.in_proj_weight.grad)
