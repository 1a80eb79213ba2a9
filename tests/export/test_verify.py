"""An export is compared with the model before it gets its name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny_run
import torch
from exported_models import (
    GREEDY,
    ctranslate2,
)

from mt.config.plugins import plugin
from mt.decoding.translate import open_engine
from mt.decoding.types import EngineOptions
from mt.errors import ConfigError, DataError, ModelError
from mt.export import export, verify


@pytest.mark.parametrize("kind", ["int8", "int8_float32", "float16", "bfloat16"])
def test_quantised_exports_stay_near_the_model(kind, run, tmp_path):
    done = export.export_model(run, "ctranslate2", tmp_path / "out", {"quantization": kind})
    assert done.worst < 0.1
    assert done.rows[1].bytes < done.rows[0].bytes + 60_000
    assert json.loads((tmp_path / "out" / "mt.json").read_text())["quantization"] == kind


def test_an_export_that_differs_is_an_error_and_leaves_nothing(run, tmp_path, monkeypatch):
    def wrong(model, opened, path, config, export=ctranslate2.export):
        with torch.no_grad():
            model.encoder[0].feed_forward.inner.weight.mul_(1.5)
        export(model, opened, path, config)

    monkeypatch.setattr(ctranslate2, "export", wrong)
    with pytest.raises(ModelError, match="EXPORT-DIFFERS") as error:
        export.export_model(run, "ctranslate2", tmp_path / "out")
    assert error.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("lacking", [None, "beam_size"])
def test_the_search_of_the_recipe_is_compared(lacking, tmp_path, monkeypatch):
    """With beams that do not reach the other engine, another translation is found."""
    engine = plugin("engines", "ctranslate2")

    def settings(config, options, real=engine.settings):
        found = real(config, options)
        return found if lacking is None else {**found, lacking: 1}

    monkeypatch.setattr(engine, "settings", settings)
    run = shutil.copytree(GOLDEN / "transformer", tmp_path / "run", symlinks=True)
    work = (run, "ctranslate2", tmp_path / "out")
    if lacking is None:
        assert export.export_model(*work, sample=GOLDEN / "source.txt").ties == ()
        return
    with pytest.raises(ModelError, match="by the search beam, and not by a tie"):
        export.export_model(*work, sample=GOLDEN / "source.txt")
    assert not (tmp_path / "out").exists()


def test_a_quantised_export_that_translates_otherwise_is_an_error(run, tmp_path, monkeypatch):
    strict = {"int8": verify.Tolerance(0.05, 101.0)}
    monkeypatch.setattr(export, "TOLERANCES", strict)
    monkeypatch.setattr(verify, "MAX_LOSS", -9.0)
    monkeypatch.setattr(verify, "MAX_LOSS_SHARE", -9.0)
    with pytest.raises(ModelError, match="chrF2"):
        export.export_model(run, "ctranslate2", tmp_path / "out", {"quantization": "int8"})
    monkeypatch.setattr(export, "TOLERANCES", {"int8": verify.Tolerance(1e-9)})
    with pytest.raises(ModelError, match="forced scores"):
        export.export_model(run, "ctranslate2", tmp_path / "out", {"quantization": "int8"})
    assert list(tmp_path.iterdir()) == []


def test_without_the_data_a_sample_must_be_given(tmp_path):
    run = tiny_run.make(tmp_path)
    for path in tmp_path.glob("train.*"):
        path.unlink()
    with pytest.raises(ConfigError, match="--sample FILE"):
        export.export_model(run, "bundle")
    (tmp_path / "lines.txt").write_text("A man sleeps.\n\nGirls sing.\n")
    done = export.export_model(run, "bundle", sample=tmp_path / "lines.txt")
    assert done.sample.lines == ["A man sleeps.", "Girls sing."]
    assert done.rows[1].bleu is None
    with pytest.raises(DataError):
        export.export_model(run, "bundle", sample=tmp_path / "nowhere", force=True)


def test_a_tie_is_distinguished_from_a_difference(run):
    engine = open_engine(run, EngineOptions(precision="fp32"))
    (found,) = engine.translate(["Girls sing."], GREEDY)
    other = (*found.tokens[:2], "<0x41>")
    assert not verify._is_tie(engine, "Girls sing.", found.tokens, other)
    with torch.no_grad():  # two bytes that are the same to the model
        table = engine.searcher.models[0].target_embedding.weight
        table[engine.vocabulary.pieces_target(range(408)).index("<0x41>")] = table[
            engine.vocabulary.pieces_target(range(408)).index("<0x42>")
        ]
    pair = [(*found.tokens[:2], name) for name in ("<0x41>", "<0x42>")]
    assert verify._is_tie(engine, "Girls sing.", *pair)
