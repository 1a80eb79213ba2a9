"""An engine that is kept translates as a new one does, and captures nothing again."""

from __future__ import annotations

import pytest
import tiny_run
import torch
from recording import Recorder
from static_decoding import refuse

import mt.decoding.torch_searcher
from mt.checkpoints import bundle
from mt.config.plugins import plugin
from mt.decoding.static_shapes import StaticShapeModel
from mt.models.modules import linear
from mt.runtime import torch_private
from mt.training.validation_engine import ValidationEngine

CPU = torch.device("cpu")


@pytest.fixture
def recorder(monkeypatch):
    """As on a CUDA device: static shapes with graphs, and packed weights that have addresses."""
    recorder = Recorder()
    monkeypatch.setattr(
        mt.decoding.torch_searcher, "with_static_shapes",
        lambda model, device: StaticShapeModel(model, device, recorder, refuse),
    )  # fmt: skip
    monkeypatch.setattr(torch_private, "pack_weight", lambda weight, rows: weight.clone())
    monkeypatch.setattr(ValidationEngine, "_is_worth_keeping", lambda self, searcher: True)
    return recorder


def results(engine):
    return [(each.text, each.score) for each in engine.translate(tiny_run.SOURCES)]


def test_a_kept_engine_translates_with_the_present_weights(tmp_path, recorder):
    opened = bundle.open_loaded_model(tiny_run.make(tmp_path), None)
    model, vocabulary, recipe = opened.model(), opened.vocabulary, opened.recipe
    translator = ValidationEngine(vocabulary, recipe, CPU, "fp32")
    with translator.open(model) as engine:
        before = [results(engine) for _ in range(3)][-1]
        assert engine.searcher.num_bytes() > 0
    assert not linear.packed_modules(model)
    captured = recorder.recorded
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    with translator.open(model) as again:
        assert again is engine
        after = results(again)
    assert recorder.recorded == captured > 0
    build = plugin("engines", "native").native_engine
    assert after == results(build(model, vocabulary, recipe, CPU, "fp32"))
    assert after != before


def test_on_a_cpu_nothing_is_kept_and_all_is_in_fp32(tmp_path):
    opened = bundle.open_loaded_model(tiny_run.make(tmp_path), None)
    translator = ValidationEngine(opened.vocabulary, opened.recipe, CPU, "bf16")
    with translator.open(opened.model()) as engine:
        assert engine.searcher.precision == "fp32"
    assert translator.kept is None
