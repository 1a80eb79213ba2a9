"""Small models and requests decoded in static shapes."""

from __future__ import annotations

import torch

from mt.config.plugins import plugin
from mt.decoding.types import Request
from mt.special_tokens import FIRST_PIECE

CPU = torch.device("cpu")

SIZE = 120

SETTINGS = {
    "beam": {"beams": 4, "no_repeat_ngram": 3},
    "diverse": {"beams": 4, "groups": 2},
    "greedy": {},
    "mbr": {"samples": 4, "candidates": {"kind": "sampling", "top_p": 0.9}},
    "sampling": {"temperature": 0.8},
}


def refuse(line):
    raise AssertionError(line)


def made(seed=1, **more):
    """A model that ends soon, and at different times, for all that it is not trained."""
    transformer = plugin("models", "transformer")
    sizes = {"d_model": 16, "n_heads": 2, "d_ff": 32, "encoder_layers": 1, "decoder_layers": 2}
    config = transformer.Config(**{**sizes, "dropout": 0.0, "tie_embeddings": "none", **more})
    torch.manual_seed(seed)
    known = type("Known", (), {"joint": False, "source_size": SIZE, "target_size": SIZE})
    model = transformer.build(config, known).eval()
    with torch.no_grad():
        model.projection.weight *= 4
        model.projection.bias[3] = 2
    return model


def request(sentences=9, longest=38, n_best=1, seed=1, **more):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 22, (sentences,), generator=generator)
    source = torch.randint(FIRST_PIECE, SIZE, (sentences, 22), generator=generator)
    source[torch.arange(22) >= lengths[:, None]] = 0
    limits = torch.randint(5, longest + 1, (sentences,), generator=generator)
    texts = lambda ids: ["".join(chr(97 + t % 7) for t in each) for each in ids]  # noqa: E731
    seeds = list(range(sentences))
    return Request(source, limits, n_best=n_best, seeds=seeds, texts=texts, **more)


def searched(kind, decoder, asked, **settings):
    module = plugin("search", kind)
    with torch.inference_mode():
        config = module.Config(**{**SETTINGS[kind], **settings})
        return module.build(config)(decoder, asked)


def same(found, expected):
    """Equal tokens, and scores equal but for the order of sums."""
    width = min(found.tokens.shape[-1], expected.tokens.shape[-1])
    assert not found.tokens[..., width:].any()
    assert torch.equal(found.tokens[..., :width], expected.tokens[..., :width])
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(
        found.log_probabilities[..., :width], expected.log_probabilities[..., :width],
        atol=1e-4, rtol=1e-5,
    )  # fmt: skip
