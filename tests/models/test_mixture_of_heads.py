"""A mixture of heads equals a masked model, computes no other heads and balances their load."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch
from tiny_run import make
from torch.utils.flop_counter import FlopCounterMode

from mt.checkpoints import bundle, run_directory
from mt.config.plugins import plugin
from mt.data import collate
from mt.models.modules import linear
from mt.models.modules.mixture_of_heads import HeadSelection
from mt.runtime import files

mixture, transformer = plugin("models", "mixture_of_heads"), plugin("models", "transformer")

SMALL = {"d_model": 16, "n_heads": 4, "d_ff": 12, "encoder_layers": 2, "decoder_layers": 2}


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
    config = {**SMALL, "dropout": 0.0, **config}
    module = mixture if "heads_per_sentence" in config else transformer
    return module.build(module.Config(**config), vocabulary)


def hidden(model, batch):
    return model.decode(batch.inputs, model.encode(batch.source))


HALF = {"heads_per_sentence": 2}


@pytest.fixture(params=["pre", "post"])
def mixed(request, vocabulary):
    model = built(vocabulary, norm=request.param, **HALF)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval().double()


def masked(mixed, vocabulary, batch):
    """The plain twin: all heads computed, those that a sentence has not selected times 0.

    From here on no gradient flows through the selection, as none does through the masks.
    """
    model = built(vocabulary, norm="pre" if mixed.encoder[0].sublayers[0].before else "post")
    model = model.eval().double()
    model.load_state_dict(mixed.state_dict(), strict=False)
    made = {}

    def note(router, given, selections):
        fixed = [HeadSelection(c.heads, c.weights.detach(), 4) for c in selections]
        made[router] = [torch.zeros(len(c.heads), 4).double().scatter(1, c.heads, c.weights)
                        for c in fixed]  # fmt: skip
        return fixed

    routers = (mixed.encoder_router, mixed.decoder_router)
    for router in routers:
        router.register_forward_hook(note)
    hidden(mixed, batch)
    parts = [layer.self_attention for layer in model.encoder]
    parts += [a for layer in model.decoder for a in (layer.self_attention, layer.cross_attention)]
    masks = [mask for router in routers for mask in made[router]]
    for part, mask in zip(parts, masks, strict=True):
        part.mask = mask
    return model, masks


def test_selected_heads_are_those_of_a_masked_model(mixed, vocabulary):
    """In value and in gradient."""
    (batch,) = batches(12, 12)
    plain, masks = masked(mixed, vocabulary, batch)
    assert any(len({tuple(row) for row in (mask > 0).tolist()}) > 1 for mask in masks)
    torch.testing.assert_close(hidden(mixed, batch), hidden(plain, batch), rtol=1e-10, atol=1e-10)
    for model in (mixed, plain):
        hidden(model, batch).pow(2).sum().backward()
    named = dict(mixed.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(named[name].grad, parameter.grad, rtol=1e-8, atol=1e-8)


def test_packed_and_cached_decoding_equals_full_decoding(mixed):
    if not linear.can_pack():
        pytest.skip("this torch has no packed products")
    (batch,) = batches(12, 12)
    model = mixed.float()
    with torch.inference_mode():
        expected = hidden(model, batch)
        for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 0.1)):
            linear.pack(model, dtype)
            memory = model.encode(batch.source)
            cache = model.start(memory, 1, batch.inputs.size(1))
            steps = [model.decode(token, memory, cache) for token in batch.inputs.split(1, dim=1)]
            found = torch.cat(steps, 1).float()
            torch.testing.assert_close(found, expected, rtol=bound, atol=bound)


def test_heads_that_are_not_selected_are_not_computed(vocabulary):
    """Operations of the attentions alone: half of the heads, half of the operations."""
    (batch,) = batches(16, 16)
    counted = {}
    for name, config in (("all", {}), ("half", HALF)):
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
        pytest.skip("modules cannot be counted apart")
    assert half == pytest.approx(whole / 2, rel=0.01)


def test_only_a_mixture_of_heads_synchronises_with_the_device(vocabulary, mixed):
    assert mixed.syncs_device
    plain = built(vocabulary, norm="pre", head_gates={"kind": "hard_concrete"})
    assert not getattr(plain, "syncs_device", False)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"heads_per_sentence": 5}, "more than n_heads"),
        ({"heads_per_sentence": 2, "positions": "rotary"}, "positions"),
        ({"heads_per_sentence": 2, "scale_attention": False}, "scale_attention"),
        ({"heads_per_sentence": 2, "layer_heads": None}, "layer_heads"),
        ({}, "heads_per_sentence"),
    ],
)
def test_a_config_that_it_cannot_be_is_refused(config, problem):
    with pytest.raises(ValueError, match=problem):
        mixture.Config(**SMALL, **config)


# ---------------------------------------------------------------------- runs of before

SIZES = "d_model: 16, n_heads: 4, d_ff: 32, encoder_layers: 1, decoder_layers: 1"


def test_a_run_and_a_bundle_with_topk_gates_open_as_a_mixture_of_heads(tmp_path):
    new = f"{{kind: mixture_of_heads, {SIZES}, heads_per_sentence: 2, balance_weight: 0.5}}"
    run = make(tmp_path, model=new)
    opened = run_directory.open_run(run)
    text = (run / "config.yaml").read_text(encoding="utf-8")
    gates = "  head_gates:\n    kind: topk\n    weight: 0.5\n    heads: 2\n"
    text = text.replace("kind: mixture_of_heads", "kind: transformer")
    text = text.replace("  heads_per_sentence: 2\n", gates + "  layer_heads: null\n")
    text = text.replace("  balance_weight: 0.5\n", "  scale_attention: true\n")
    files.write_file(run / "config.yaml", text)
    assert "topk" in text
    again = run_directory.open_run(run)
    assert again.recipe == opened.recipe
    states = [each.model().state_dict() for each in (opened, again)]
    assert states[0].keys() == states[1].keys()
    with zipfile.ZipFile(tmp_path / "old.mt", "w") as archive:
        archive.writestr("MANIFEST.json", "{}")
        archive.writestr("config.yaml", text)
    assert bundle.read_any_recipe(tmp_path / "old.mt") == opened.recipe
