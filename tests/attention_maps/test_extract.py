"""Laws of seeing attention: the weights are the model's own, and the page tells them."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from shown_maps import ABOUT, PLAIN, SOURCE, data_of, softmax

from mt.attention_maps import extract, html
from mt.checkpoints import bundle
from mt.cli import main
from mt.config.plugins import plugin
from mt.errors import ConfigError
from mt.models.modules import linear
from mt.special_tokens import BEGIN


def keep(kept, name, module, inputs, output):
    kept[name] = output[0].detach().double().numpy()


def by_hooks(model, ids, inputs):
    """Each attention's weights, from what its projections gave, by numpy alone."""
    found, kept, hooks = {}, {}, []
    for name, module in model.named_modules():
        if name.endswith(("attention.query", "attention.key_value")):
            hooks.append(module.register_forward_hook(partial(keep, kept, name)))
    model.decode(inputs, model.encode(ids))
    for hook in hooks:
        hook.remove()
    for name in [name.removesuffix(".query") for name in kept if name.endswith(".query")]:
        query, both = kept[f"{name}.query"], kept[f"{name}.key_value"]
        width = query.shape[1] // 2  # two heads
        heads = []
        for h in range(2):
            part = slice(h * width, (h + 1) * width)
            scores = query[:, part] @ both[:, part].T / math.sqrt(width)
            if name.startswith("decoder") and "self" in name:
                scores[np.triu(np.ones_like(scores, dtype=bool), 1)] = -math.inf
            heads.append(softmax(scores))
        found[name] = np.stack(heads)
    return found


def test_the_weights_are_those_of_an_independent_computation(engine):
    sentence = engine.sentence(SOURCE)
    (target,) = engine.vocabulary.encode_target(["Zwei Hunde spielen."])
    target = [*target, 3]
    maps = engine.searcher.attentions(sentence.source, target)
    model = engine.searcher.models[0]
    linear.pack(model, None)  # what is packed does not pass its modules
    try:
        inputs = torch.tensor([[BEGIN, *target[:-1]]])
        with engine.searcher.inference():
            found = by_hooks(model, torch.tensor([sentence.source]), inputs)
    finally:
        linear.pack(model, engine.searcher.packed)
    named = {"encoder": "encoder.0.self", "decoder": "decoder.0.self", "cross": "decoder.0.cross"}
    assert set(maps) == set(extract.PARTS)
    for part, name in named.items():
        (layer,) = maps[part]
        np.testing.assert_allclose(layer, found[f"{name}_attention"], atol=2e-6)
        np.testing.assert_allclose(layer.sum(axis=2), 1, atol=1e-6)


def test_recording_changes_nothing_and_ends(run):
    model = bundle.open_loaded_model(run).model().eval()
    source, inputs = torch.randint(68, 400, (2, 5)), torch.randint(68, 400, (2, 4))
    source[1, 3:] = 0
    with torch.inference_mode():
        before = model.decode(inputs, model.encode(source))
        maps = model.attentions(source, inputs)
        after = model.decode(inputs, model.encode(source))
        layer = model.decoder[0].cross_attention
        layer.recorded_weights = []
        watched = model.decode(inputs, model.encode(source))
        layer.recorded_weights = None
        aligned = model.attention(source, inputs)
    assert torch.equal(before, after)
    assert torch.equal(before, watched)
    assert all(getattr(part, "watch", None) is None for part in model.modules())
    assert maps["cross"][0].shape == (2, 2, 4, 5)
    assert (maps["cross"][0][1, :, :, 3:] == 0).all()
    assert torch.equal(aligned, maps["cross"][0].mean(dim=1))  # one layer: it is the one


def test_the_alternatives_and_their_alignments_are_those_of_translate(run, sights, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    source.write_text(SOURCE + "\n", encoding="utf-8")
    arguments = ["translate", str(run), "-i", str(source), "-o", str(out), "--alignments"]
    arguments += ["--n-best", "3", "--precision", "fp32", "--threads", "1"]
    assert main.run(arguments) == 0
    rows = [line.split(" ||| ") for line in out.read_text(encoding="utf-8").splitlines()]
    page = data_of(html.render_html(sights, {}))
    assert [row[1] for row in rows] == [each["text"] for each in page["translations"]]
    assert [row[4] for row in rows] == [each["pharaoh"] for each in page["translations"]]
    scores = [each["score"] for each in page["translations"]]
    assert [float(row[3]) for row in rows] == pytest.approx(scores, abs=1e-6)


def test_a_given_target_is_forced(engine, sights):
    (found,) = extract.extract(engine, SOURCE, "Das alte Haus ist rot.")
    assert found.translation.text == "Das alte Haus ist rot."
    assert "".join(found.outputs[:-1]).replace("▁", " ").strip() == "Das alte Haus ist rot."
    pair = next(iter(engine.score([_pair(SOURCE, found.translation.text)])))
    assert found.translation.score == pytest.approx(pair.log_probability, abs=1e-5)
    np.testing.assert_array_equal(found.maps["encoder"][0], sights[0].maps["encoder"][0])


def test_what_was_found_has_when_forced_the_attention_with_which_it_was_found(engine, sights):
    sentence, config = engine.sentence(SOURCE), engine.profile.search
    (found,) = engine.searcher.search([sentence], config, replace(PLAIN, alignments=True, n_best=3))
    for hypothesis, shown in zip(found, sights, strict=True):
        again = engine.searcher.forced(sentence.source, hypothesis.tokens)
        np.testing.assert_allclose(again.alignment, hypothesis.alignment, atol=1e-6)
        rows = [row[:-1] for row in again.alignment[:-1]]
        np.testing.assert_allclose(rows, shown.translation.alignment, atol=1e-6)
        np.testing.assert_allclose(again.alignment, shown.maps["cross"][0].mean(axis=0), atol=1e-6)


def _pair(source, target):
    from mt.data.pairs import Pair

    return Pair(source, target, "en", "de", "test")


def recurrent(run, attention):
    opened = bundle.open_loaded_model(run)
    rnn = plugin("models", "rnn")
    config = rnn.Config(d_model=12, units=16, encoder_layers=1, attention=attention)
    model = rnn.build(config, opened.vocabulary)
    build = plugin("engines", "native").native_engine
    return build(model, opened.vocabulary, opened.recipe, torch.device("cpu"), "fp32")


@pytest.mark.parametrize("attention", ["bahdanau", "dot"])
def test_a_recurrent_model_has_cross_attention_of_one_head(run, attention):
    found = extract.extract(recurrent(run, attention), SOURCE)
    assert set(found[0].maps) == {"cross"}
    (layer,) = found[0].maps["cross"]
    np.testing.assert_allclose(layer.sum(axis=2), 1, atol=1e-6)
    rows = [row[:-1] for row in layer[0, :-1].tolist()]
    np.testing.assert_allclose(rows, found[0].translation.alignment, atol=1e-6)
    assert data_of(html.render_html(found, ABOUT))["parts"] == [["cross", "cross-attention"]]


def test_a_recurrent_model_without_attention_says_so(run):
    with pytest.raises(ConfigError, match=r"model\.attention"):
        extract.extract(recurrent(run, "none"), SOURCE, "Ein Mann")


# ------------------------------------------------------------------------------- figures


def test_entropy_and_confidence_of_heads_that_are_known():
    sure, even = np.eye(3, 4)[None], np.full((1, 3, 4), 0.25)
    weights = np.concatenate([sure, even]).astype(np.float32)
    assert extract.entropy(weights).tolist() == [0, 2]
    assert extract.confidence(weights, None).tolist() == [1, 0.25]
    ending = np.array([[[0.1, 0.9], [0.3, 0.7]]], dtype=np.float32)
    assert extract.confidence(ending, 1).tolist() == pytest.approx([0.2])
    assert extract.confidence(np.zeros((0, 3, 4), np.float32), None).tolist() == []
