"""Laws of seeing attention: the weights are the model's own, and the page tells them."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shutil
import sys
from dataclasses import replace
from functools import partial

import browser
import numpy as np
import pytest
import tiny_run
import torch

from mt.attention_maps import extract, html
from mt.attention_maps.extract import AttentionMaps, select_maps
from mt.checkpoints import bundle
from mt.cli import main
from mt.config.plugins import plugin
from mt.decoding.types import EngineOptions, Translation
from mt.errors import ConfigError, DataError
from mt.models.modules import linear
from mt.special_tokens import BEGIN

SOURCE = "Two dogs play in the grass!"
PLAIN = EngineOptions(precision="fp32", threads=1, device="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run.make(tmp_path_factory.mktemp("seeing"))


@pytest.fixture(scope="module")
def engine(run):
    return extract.open_with_attention(run, PLAIN)


@pytest.fixture(scope="module")
def sights(engine):
    return extract.extract(engine, SOURCE)


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


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


@pytest.mark.parametrize("levels", [html.COARSE, html.FINE])
@pytest.mark.parametrize("columns", [1, 2, 20, 200])
def test_quantised_weights_are_near_and_their_rows_sum_to_one(levels, columns):
    weights = softmax(np.random.default_rng(1).normal(size=(3, 7, columns)) * 3)
    kind = "<u2" if levels > 255 else "u1"
    told = np.frombuffer(html.quantize(weights, levels), kind).reshape(weights.shape)
    back = (told / levels) ** 2
    assert (abs(back - weights) <= np.sqrt(weights) / levels + 0.25 / levels**2).all()
    most = math.sqrt(columns) / levels + columns / (4 * levels**2)
    assert abs(back.sum(axis=2) - 1).max() <= most


# ------------------------------------------------------------------------------ the page


def sight(source, target, text, heads=(2, 2), seed=1):
    """Made up: pieces, and layers of so many heads."""
    random = np.random.default_rng(seed)
    rows, columns = (*target, "</s>"), (*source, "</s>")

    def maps(down, across):
        return [
            softmax(random.normal(size=(h, down, across)) * 2).astype(np.float32) for h in heads
        ]

    found = {
        "encoder": maps(len(columns), len(columns)),
        "decoder": maps(len(rows), len(rows)),
        "cross": maps(len(rows), len(columns)),
    }
    shares = tuple(tuple(row[:-1].tolist()) for row in found["cross"][0][0][:-1])
    told = Translation(
        text, -1.5, tuple(target), tuple([-0.5] * len(rows)), source_tokens=tuple(source),
        alignment=shares,
    )  # fmt: skip
    return AttentionMaps(told, columns, ("<s>", *rows[:-1]), rows, found)


def data_of(page):
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1]
    return json.loads(text)


def layers_of(data, part, choice=0):
    """The weights that a page tells, as a browser reads them."""
    found = data["translations"][choice]
    rows = len(data["pieces"] if part == "encoder" else found["outputs"])
    columns = len(found["inputs"] if part == "decoder" else data["pieces"])
    layers = data["encoder"] if part == "encoder" else found[part]
    kind = "<u2" if data["levels"] > 255 else "u1"
    for layer in layers:
        whole = np.frombuffer(base64.b64decode(layer["weights"]), kind)
        yield (whole.reshape(len(layer["heads"]), rows, columns) / data["levels"]) ** 2


EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&\u2028{{data}}"
ABOUT = {"model": EVIL, "text": EVIL, "source": "en", "target": "zh", "forced": False}


def evil():
    return [sight(["▁a", EVIL, "▁b"], ["▁今天", "天气", EVIL], EVIL, seed=n) for n in range(2)]


def test_the_page_requests_nothing_and_nothing_in_it_escapes():
    page = html.render_html(evil(), ABOUT)
    assert not re.search(r"https?:|(?<![a-z])//[a-z]|url\(|@import|<link|<img|<iframe", page)
    assert "alert(1)<" not in page
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "innerHTML" not in page
    assert data_of(page)["text"] == EVIL
    assert data_of(page)["translations"][1]["text"] == EVIL


def test_the_policy_of_the_page_allows_its_own_style_and_script_only():
    page = html.render_html(evil(), ABOUT)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for tag in ("style", "script"):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.S)[1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert not re.search(r"<[^>]+ (style|on\w+)=", page)  # what the policy would forbid


def test_what_the_page_shows_are_the_weights(sights):
    data = data_of(html.render_html(sights, {}))
    assert data["levels"] == html.FINE
    for choice, each in enumerate(sights):
        for part in extract.PARTS:
            told = list(layers_of(data, part, choice))
            assert len(told) == len(each.maps[part])
            for layer, weights in zip(told, each.maps[part], strict=True):
                np.testing.assert_allclose(layer, weights, atol=2e-5)
                np.testing.assert_allclose(layer.sum(axis=2), 1, atol=1e-3)


def test_layers_may_differ_in_their_heads():
    uneven = sight(["▁a", "▁b"], ["▁c"], "c", heads=(4, 1, 0))
    data = data_of(html.render_html([uneven], ABOUT))
    assert [len(layer["heads"]) for layer in data["encoder"]] == [4, 1, 0]
    assert [layer.shape for layer in layers_of(data, "cross")] == [(4, 2, 3), (1, 2, 3), (0, 2, 3)]
    assert len(select_maps(uneven, "cross", None, 2)) == 1
    with pytest.raises(ConfigError, match="heads 1 to 1"):
        select_maps(uneven, "cross", 2, 2)
    with pytest.raises(ConfigError, match="no head is left"):
        select_maps(uneven, "cross", 3, None)


def test_a_model_may_have_cross_attention_only():
    alone = sight(["▁a", "▁b"], ["▁c"], "c", heads=(1,))
    alone = replace(alone, maps={"cross": alone.maps["cross"]})
    data = data_of(html.render_html([alone], ABOUT))
    assert data["parts"] == [["cross", "cross-attention"]]
    assert data["encoder"] is None
    with pytest.raises(ConfigError, match="it has: cross"):
        select_maps(alone, "encoder", None, None)


def test_the_size_of_a_page_is_bounded(monkeypatch):
    monkeypatch.setattr(html, "FINE_WEIGHTS", 1000)
    monkeypatch.setattr(html, "MAX_PAGE_WEIGHTS", 60_000)
    pieces = [f"▁{number}" for number in range(49)]
    sights = [sight(pieces, pieces, "x", seed=n) for n in range(5)]  # 10,000 weights a part
    page = html.render_html(sights, ABOUT)
    data = data_of(page)
    assert data["levels"] == html.COARSE
    assert [each["cross"] is None for each in data["translations"]] == [False] * 2 + [True] * 3
    assert len(page) < 60_000 * 4 / 3 + len(html.TEMPLATE.read_text("utf-8")) + 40_000
    monkeypatch.setattr(html, "MAX_PAGE_WEIGHTS", 29_000)
    with pytest.raises(DataError, match="29,000"):
        html.render_html(sights, ABOUT)


def test_a_source_of_one_piece_and_one_of_many(engine, tmp_path):
    for text in ("a", " ".join("a" * 30)):
        found = extract.extract(engine, text, n_best=1)
        data = data_of(html.render_html(found, ABOUT))
        assert all(abs(layer.sum(axis=2) - 1).max() < 1e-3 for layer in layers_of(data, "cross"))


# ------------------------------------------------------------------------------ the command


def shown(arguments, capsys):
    code = main.run(["attention", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_writes_a_page_of_a_run_a_checkpoint_and_a_bundle(
    run, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    packed = tmp_path / "tiny.mt"
    opened = bundle.open_loaded_model(run)
    bundle.write_bundle(packed, opened, opened.model())
    pages = []
    for model in (run, run / "checkpoints" / "step-00000007", packed):
        arguments = [model, "--source", SOURCE, "--precision", "fp32", "--force"]
        code, out, err = shown(arguments, capsys)
        assert (code, out) == (0, ""), err
        assert "wrote attention.html" in err
        pages.append(data_of((tmp_path / "attention.html").read_text(encoding="utf-8")))
    assert [page["translations"] for page in pages] == [pages[0]["translations"]] * 3
    assert pages[0]["text"] == SOURCE
    code, _, err = shown([run, "--source", SOURCE], capsys)  # it is there, and not replaced
    assert code == 2
    assert "--force" in err


def test_the_same_in_a_terminal(run, capsys):
    arguments = [run, "--source", SOURCE, "--terminal", "--part", "encoder", "--head", 2]
    code, out, _ = shown(arguments, capsys)
    assert code == 0
    assert out.count("confidence (entropy in bits)") == 3
    assert "encoder self-attention, layer 1, head 2" in out
    assert "layer 1, head 1:" not in out
    assert set(out) & set("░▒▓█")
    assert "\x1b" not in out  # no colours where no terminal is


def test_a_picture(run, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "heads.png"
    code, _, err = shown([run, "--source", "a 日本", "--png", picture], capsys)
    assert code == 0, err
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert list(tmp_path.iterdir()) == [picture]


def test_a_picture_without_matplotlib_names_the_extra(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = shown([run, "--source", SOURCE, "--png", tmp_path / "heads.png"], capsys)
    assert code == 5
    assert "pip install 'mt[plot]'" in err


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        (["--source", "  "], 3, "nothing in it"),
        (["--source", "a " * 60], 3, "room for"),
        (["--source", "a", "--target", "b " * 60], 3, "room for"),
        (["--source", "a", "--target", " "], 3, "nothing in it"),
        (["--source", "a", "--target", "b", "--n-best", "2"], 2, "--n-best"),
        (["--source", "a", "--n-best", "9"], 2, "beams"),
        (["--source", "a", "--terminal", "--part", "all"], 2, "cross"),
        (["--source", "a", "--terminal", "--layer", "2"], 2, "layers 1 to 1"),
        (["--source", "a", "--terminal", "--head", "3"], 2, "heads 1 to 2"),
    ],
)
def test_what_cannot_be_shown_is_reported(run, capsys, tmp_path, monkeypatch, more, code, told):
    monkeypatch.chdir(tmp_path)
    found, out, err = shown([run, *more], capsys)
    assert (found, out) == (code, "")
    assert told in err
    assert list(tmp_path.iterdir()) == []


def test_an_ensemble_and_other_engines_and_models_without_attention_are_refused(
    run, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, _, err = shown([run, run, "--source", "a"], capsys)
    assert (code, "ensemble" in err) == (2, True)
    from mt.models.modules import transformer_layers

    monkeypatch.delattr(transformer_layers.TransformerStacks, "attention")
    monkeypatch.delattr(transformer_layers.TransformerStacks, "attentions")
    for more in ([], ["--target", "b"]):
        code, _, err = shown([run, "--source", "a", *more], capsys)
        assert code == 2
        assert "Transformer tells of no attention" in err


def test_a_ctranslate2_folder_is_refused_by_name(run, capsys, tmp_path, monkeypatch):
    pytest.importorskip("ctranslate2")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "exported"
    assert main.run(["export", str(run), "--to", "ctranslate2", "-o", str(folder)]) == 0
    code, _, err = shown([folder, "--source", "a"], capsys)
    assert code == 2
    assert "ctranslate2" in err
    assert "give the run" in err


# ------------------------------------------------------------------------------ a browser


@pytest.mark.skipif(browser.found() is None, reason="there is no Chromium")
def test_in_a_browser_every_head_can_be_reached_and_nothing_is_asked_for(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(html.render_html(evil(), ABOUT), encoding="utf-8")
    window = browser.Browser(tmp_path / "profile")
    try:
        window.look(1200, 900, "dark")
        window.open(page)
        assert window.value("document.querySelectorAll('.head').length") == 4
        assert window.value("document.getElementById('source').textContent") == EVIL
        heads = []
        for _ in range(4):
            heads.append(window.value("document.getElementById('which').textContent"))
            window.key("ArrowRight")
        assert len(set(heads)) == 4
        window.key("2")
        assert "Encoder" in window.value("document.getElementById('which').textContent")
        window.key("1")
        window.key("n")
        assert window.value("document.querySelectorAll('[name=choice]')[1].checked") is True
        box = window.value("document.getElementById('field').getBoundingClientRect().toJSON()")
        weights = list(layers_of(data_of(page.read_text("utf-8")), "cross", 1))
        for step in range(4):  # what is told of a cell is its weight, in each head
            window.key("ArrowRight")
            window.move(box["x"] + 3 + step, box["y"] + 3)
            told = float(window.value("document.querySelector('#now b').textContent"))
            pressed = "document.querySelector('.head[aria-pressed=true]').dataset.place"
            layer, head = map(int, window.value(pressed).split(","))
            assert told == pytest.approx(weights[layer][head, 0, 0], abs=1e-4)
        dark = window.value("getComputedStyle(document.body).backgroundColor")
        window.look(390, 800, "light")
        assert window.value("getComputedStyle(document.body).backgroundColor") != dark
        wide = "document.documentElement.scrollWidth - innerWidth"
        assert window.value(wide) <= 0  # nothing is cut off on a phone
        assert window.wrong() == []
    finally:
        window.close()
        shutil.rmtree(tmp_path / "profile", ignore_errors=True)
