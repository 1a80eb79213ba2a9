"""An exported CTranslate2 model is the model, with every option."""

from __future__ import annotations

from dataclasses import replace

import pytest
from exported_models import (
    BEAM,
    GREEDY,
    ctranslate2,
    huggingface,
    native_engine,
    opened_with,
    refused,
    scores,
    some_combinations,
    texts,
)

from mt.decoding.translate import open_engine
from mt.decoding.types import EngineOptions

OPTIONS = {
    "norm": ["pre", "post"],
    "norm_kind": ["layer", "rms"],
    "activation": ["relu", "gelu", "swiglu"],
    "positions": ["sinusoidal", "learned", "rotary", "none"],
    "tie_embeddings": ["all", "decoder", "none"],
    "scale_embeddings": [True, False],
}


@pytest.mark.parametrize(
    "options", some_combinations(OPTIONS), ids=lambda o: "-".join(map(str, o.values()))
)
def test_ctranslate2_is_the_model_with_every_option(options, subwords, tmp_path):
    model, opened = opened_with(tmp_path, subwords, **options)
    ctranslate2.export(model, opened, tmp_path / "ct2", ctranslate2.Config())
    ours, theirs = native_engine(model, opened), open_engine(tmp_path / "ct2", EngineOptions())
    assert scores(theirs) == pytest.approx(scores(ours), rel=1e-4)
    assert texts(theirs, GREEDY) == texts(ours, GREEDY)
    assert texts(theirs, BEAM) == texts(ours, BEAM)


def test_ctranslate2_has_separate_vocabularies(subwords, tmp_path):
    model, opened = opened_with(tmp_path, subwords, joint=False)
    ctranslate2.export(model, opened, tmp_path / "ct2", ctranslate2.Config())
    ours, theirs = native_engine(model, opened), open_engine(tmp_path / "ct2", EngineOptions())
    assert scores(theirs) == pytest.approx(scores(ours), rel=1e-4)
    assert texts(theirs, BEAM) == texts(ours, BEAM)


def test_settings_of_beams_mean_the_same_in_ctranslate2(subwords, tmp_path):
    model, opened = opened_with(tmp_path, subwords)
    ctranslate2.export(model, opened, tmp_path / "ct2", ctranslate2.Config())
    ours, theirs = native_engine(model, opened), open_engine(tmp_path / "ct2", EngineOptions())
    plain = texts(ours, BEAM)
    for search in (
        {"repetition_penalty": 1.5}, {"no_repeat_ngram": 2}, {"patience": 2.0, "n_best": 3},
        {"length_penalty": 0.0}, {"length_penalty": 2.0, "beams": 2},
    ):  # fmt: skip
        count = search.pop("n_best", 1)
        options = EngineOptions(search=search, n_best=count)
        assert texts(theirs, options) == texts(ours, options)
    assert texts(ours, EngineOptions(search={"no_repeat_ngram": 1})) != plain


def test_another_model_is_refused_by_name(subwords, tmp_path):
    _, opened = opened_with(tmp_path, subwords, steps=0)
    rnn = opened.recipe.model.model_copy(update={"kind": "rnn"})
    opened = replace(opened, recipe=opened.recipe.model_copy(update={"model": rnn}))
    for exporter in (ctranslate2, huggingface):
        assert "model.kind: " in refused(exporter, opened)
        assert "cannot express the model rnn" in refused(exporter, opened)


def test_attention_that_is_not_scaled_is_refused_by_name(subwords, tmp_path):
    _, opened = opened_with(tmp_path, subwords, steps=0, scale_attention=False)
    for exporter in (ctranslate2, huggingface):
        assert "model.scale_attention: " in refused(exporter, opened)
        assert "cannot express false" in refused(exporter, opened)
