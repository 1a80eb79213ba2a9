"""A map shows the mean over the heads of the last layer, for the translation that was kept."""

import numpy as np
import pytest
import tiny_run
from lxml import html

from mt.attention_maps import extract
from mt.decoding.types import EngineOptions
from mt.report import attention
from mt.report.attention import collect_maps, draw_map

PAIR = ("Two dogs play in the grass!", "Zwei Hunde spielen im Gras!")


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """A run of a model with two layers."""
    model = "{kind: transformer, d_model: 16, n_heads: 2, d_ff: 32, encoder_layers: 1, "
    return tiny_run.make(tmp_path_factory.mktemp("deep"), model=model + "decoder_layers: 2}")


def test_the_weights_are_those_of_the_last_layer(deep):
    (found,) = collect_maps(deep, [PAIR], "de")
    engine = extract.open_with_attention(deep, EngineOptions(precision="fp32"))
    (maps,) = extract.extract(engine, *PAIR)
    mean = maps.maps["cross"][-1].mean(axis=0)  # [T, S]
    read = np.array([[int(digit) for digit in line] for line in found["weights"]])
    assert read.shape == (len(found["target"]), len(found["source"])) == mean.shape
    assert abs(read / attention.LEVELS - mean).max() <= 0.5 / attention.LEVELS + 1e-6


def test_what_is_blank_or_long_has_no_map(deep, monkeypatch):
    assert collect_maps(deep, [("", "x"), ("x", " "), ("a " * 200, "x")], "de") == [None] * 3
    monkeypatch.setattr(attention, "MOST_PIECES", 2)
    assert collect_maps(deep, [PAIR], "de") == [None]


def test_a_model_without_attention_has_none(tmp_path):
    model = "{kind: rnn, d_model: 12, units: 16, attention: none}"
    assert collect_maps(tiny_run.make(tmp_path, model=model), [PAIR], "de") == [None]


def test_a_map_is_drawn_with_a_cell_for_each_weight_and_its_text_escaped():
    drawn = draw_map({"source": ["<b>", "x", "y"], "target": ["&", "z"], "weights": ["901", "099"]})
    tree = html.fromstring(str(drawn))
    assert [text.text_content() for text in tree.xpath("//text")] == ["<b>", "x", "y", "&", "z"]
    paths = {path.get("class"): path.get("d") for path in tree.xpath("//path")}
    assert paths == {"w9": "M0 0h1v1h-1zM1 1h1v1h-1zM2 1h1v1h-1z", "w1": "M2 0h1v1h-1z"}
