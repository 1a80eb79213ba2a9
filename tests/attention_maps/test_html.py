"""The page of attention maps shows the weights and requests nothing."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import shutil
from dataclasses import replace

import browser
import numpy as np
import pytest
from shown_maps import ABOUT, EVIL, data_of, softmax

from mt.attention_maps import extract, html
from mt.attention_maps.extract import AttentionMaps, select_maps
from mt.decoding.types import Translation
from mt.errors import ConfigError, DataError


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


# ------------------------------------------------------------------------------ a browser


@pytest.mark.skipif(browser.found() is None, reason="there is no Chromium")
def test_in_a_browser_every_head_can_be_reached_and_nothing_is_requested(tmp_path):
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
