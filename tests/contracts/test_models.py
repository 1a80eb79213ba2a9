"""Laws that every model in mt/models keeps."""

from __future__ import annotations

import pytest
import torch

from mt.config.plugins import plugin, plugins
from mt.errors import ConfigError
from mt.interfaces import Memory
from mt.training.losses import linear_cross_entropy

SMALL = {
    "transformer": [
        {"d_model": 16, "n_heads": 4, "d_ff": 32, "encoder_layers": 2, "decoder_layers": 2, **more}
        for more in (
            {},
            {"norm": "pre", "norm_kind": "rms", "activation": "swiglu", "tie_embeddings": "none"},
            {"positions": "learned", "max_length": 12, "activation": "gelu"},
            {"norm": "pre", "positions": "none", "tie_embeddings": "decoder"},
            {"scale_attention": False},
            {"n_heads": 3, "d_head": 6},
            {"layer_heads": {"encoder": [1, 3], "decoder": [2, 1], "cross": [3, 2]}},
            {"head_gates": {"kind": "hard_concrete"}},
            {"norm": "pre", "positions": "rotary"},
        )
    ],
    "mixture_of_heads": [
        {
            "d_model": 16,
            "n_heads": 4,
            "d_ff": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "heads_per_sentence": 2,
            **more,
        }
        for more in ({"norm": "pre"}, {"positions": "learned", "max_length": 12, "d_head": 6})
    ],
    "rnn": [
        {"d_model": 12, "units": 16, "encoder_layers": 2, **more}
        for more in (
            {"attention": "bahdanau"},
            {"attention": "bahdanau", "decoder_layers": 3, "tie_embeddings": "none"},
            {"attention": "dot"},
            {"attention": "dot", "decoder_layers": 3},
            {"attention": "none"},
            {"attention": "none", "decoder_layers": 2, "tie_embeddings": "decoder"},
        )
    ],
}
CASES = [(kind, config) for kind in plugins("models") for config in SMALL.get(kind, [{}])]


@pytest.fixture(params=CASES, ids=lambda case: "-".join(map(str, case[1].values())))
def model(request, vocabulary):
    kind, config = request.param
    module = plugin("models", kind)
    return module.build(module.Config(**config), vocabulary).eval().double()


@pytest.fixture
def pair():
    source, target = torch.randint(68, 90, (4, 7)), torch.randint(68, 90, (4, 6))
    for row, length in enumerate((7, 5, 3, 1)):
        source[row, length:] = 0
    return source, target


def test_a_position_does_not_depend_on_the_future(model, pair):
    source, target = pair
    before = model.decode(target, model.encode(source))
    for position in range(1, target.size(1)):
        changed = target.clone()
        changed[:, position] = 68 + (changed[:, position] - 67) % 22
        after = model.decode(changed, model.encode(source))
        assert torch.equal(before[:, :position], after[:, :position])
        assert not torch.allclose(before[:, position], after[:, position])


def test_padding_changes_nothing(model, pair):
    source, target = pair
    wide = torch.cat([source, torch.zeros(4, 3, dtype=torch.long)], 1)
    long = torch.cat([target, torch.zeros(4, 2, dtype=torch.long)], 1)
    narrow = model.decode(target, model.encode(source))
    padded = model.decode(long, model.encode(wide))[:, : target.size(1)]
    torch.testing.assert_close(narrow, padded, rtol=1e-10, atol=1e-10)


def test_a_batch_equals_its_sentences(model, pair):
    source, target = pair
    together = model.decode(target, model.encode(source))
    for row in range(len(source)):
        alone = source[row : row + 1, : int((source[row] > 0).sum())]
        single = model.decode(target[row : row + 1], model.encode(alone))
        torch.testing.assert_close(together[row : row + 1], single, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("chunks", [[1] * 6, [3, 1, 2], [6]])
def test_cached_decoding_equals_full_decoding(model, pair, chunks):
    source, target = pair
    memory = model.encode(source)
    cache = model.start(memory, 1, 6)
    parts = [model.decode(part, memory, cache) for part in target.split(chunks, dim=1)]
    full = model.decode(target, memory)
    torch.testing.assert_close(torch.cat(parts, 1), full, rtol=1e-10, atol=1e-10)


def test_beams_share_a_source_and_can_be_permuted_and_dropped(model, pair):
    source, _ = pair
    memory = model.encode(source)
    beams = torch.randint(68, 90, (4, 3, 6))  # [B, N, T]
    cache = model.start(memory, 3, 6)
    model.decode(beams.flatten(0, 1)[:, :2], memory, cache)
    order = torch.tensor([[2, 2, 0], [0, 1, 2], [1, 0, 0], [2, 1, 1]])
    cache.reorder((torch.arange(4)[:, None] * 3 + order).flatten())
    kept = torch.tensor([0, 2, 3])
    cache.select_sentences(kept)
    beams = torch.stack([beams[b, order[b]] for b in range(4)])[kept]
    found = model.decode(beams.flatten(0, 1)[:, 2:3], memory, cache)
    for b, sentence in enumerate(kept):
        alone = model.encode(source[sentence][None]).states.expand(3, -1, -1)
        single = Memory(alone, memory.valid[sentence].expand(3, -1))
        full = model.decode(beams[b][:, :3], single)[:, 2:]
        torch.testing.assert_close(found[3 * b : 3 * b + 3], full, rtol=1e-10, atol=1e-10)


def test_attentions_are_shares_of_what_may_be_seen(model, pair):
    source, target = pair
    try:
        maps = model.attentions(source, target)
        aligned = model.attention(source, target)
    except ConfigError:
        pytest.skip("this model has no attention")
    sizes = {"encoder": (7, 7), "decoder": (6, 6), "cross": (6, 7)}
    assert maps.keys() <= sizes.keys()
    for part, layers in maps.items():
        for layer in layers:
            assert (layer.shape[0], layer.shape[2:]) == (4, sizes[part])
            torch.testing.assert_close(layer.sum(-1), torch.ones_like(layer[..., 0]))
            if part == "decoder":
                assert not layer.triu(1).any()
            else:
                assert not layer.movedim(3, 1)[source == 0].any()
    assert aligned.shape == (4, 6, 7)
    torch.testing.assert_close(aligned.sum(-1), torch.ones_like(aligned[..., 0]))
    after = model.attentions(source, target)
    assert all(map(torch.equal, maps["cross"], after["cross"]))


def test_every_parameter_learns(model, pair):
    source, target = pair
    hidden = model.decode(target, model.encode(source))
    linear_cross_entropy(hidden.flatten(0, 1), *model.output(), target.flatten()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
