"""The Transformer: shared embeddings and scaling."""

from __future__ import annotations

import torch

from mt.models import transformer


def test_embeddings_are_shared_as_configured(vocabulary):
    sizes = {"d_model": 8, "n_heads": 2, "d_ff": 8, "encoder_layers": 1, "decoder_layers": 1}
    count = {
        tie: sum(
            p.numel()
            for p in transformer.build(
                transformer.Config(tie_embeddings=tie, **sizes), vocabulary
            ).parameters()
        )
        for tie in ("all", "decoder", "none")
    }
    assert count["decoder"] - count["all"] == 90 * 8
    assert count["none"] - count["decoder"] == 90 * 8 + 90  # an output matrix, and its bias


def test_a_model_without_scaling_is_one_of_sharper_queries(vocabulary):
    sizes = {"d_model": 16, "n_heads": 4, "d_ff": 8, "encoder_layers": 1, "decoder_layers": 1}
    scaled, plain = (
        transformer.build(transformer.Config(scale_attention=scale, **sizes), vocabulary).eval()
        for scale in (True, False)
    )
    plain.load_state_dict(scaled.state_dict())
    source, target = torch.randint(4, 90, (3, 6)), torch.randint(4, 90, (3, 5))
    assert not torch.allclose(scaled(source, target), plain(source, target))
    with torch.no_grad():
        for name, weight in scaled.named_parameters():
            if ".query." in name:
                weight *= 2  # the root of 16 / 4
    torch.testing.assert_close(scaled(source, target), plain(source, target))
