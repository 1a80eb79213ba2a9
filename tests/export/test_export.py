"""Exports are the model: scores, greedy and beam output; what cannot be is refused beforehand."""

from __future__ import annotations

import shutil

import pytest
import tiny_run

from mt.decoding.translate import open_engine
from mt.decoding.types import EngineOptions
from mt.errors import ConfigError
from mt.export import export
from mt.runtime import files


def test_nothing_is_written_where_it_is_refused(run, tmp_path):
    (run.parent / "other").mkdir(exist_ok=True)
    out = tmp_path / "out"
    for kind, settings in (
        ("huggingface", {"quantization": "int8"}), ("ctranslate2", {"quantization": "int3"}),
        ("onnx", {}),
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            export.export_model(run, kind, out, settings)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_kept_unless_it_is_an_export_and_forced(run, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(ConfigError, match="EXPORT-EXISTS"):
            export.export_model(run, "ctranslate2", precious, force=force)
    assert (precious / "thesis.txt").read_text() == "years of work"
    out = tmp_path / "out"
    for force in (False, True):
        done = export.export_model(run, "ctranslate2", out, force=force)
        assert done.path == out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "precious"]


def test_an_export_is_called_after_its_run(run, tmp_path):
    names = {"bundle": "run.mt", "ctranslate2": "run-ctranslate2", "huggingface": "run-huggingface"}
    # The files lie beside the run, where other tests may have exported before.
    data = [path for path in run.parent.iterdir() if path.is_file() and path.suffix != ".mt"]
    for path in data:
        shutil.copy(path, tmp_path)
    run = shutil.copytree(run, tmp_path / "run", symlinks=True)
    for kind, name in names.items():
        done = export.export_model(run, kind)
        assert done.path == run.parent / name
        assert done.worst < 1e-4
        lines = list(export.format_result(done))
        assert lines[-1] == f"written: {done.path}"


def test_a_line_of_more_sentences_than_usual_is_translated_in_parts_by_every_engine(run, tmp_path):
    run = shutil.copytree(run, tmp_path / "run", symlinks=True)
    lines = [" ".join(tiny_run.SOURCES[:2]), *tiny_run.SOURCES[:2]]
    whole = [each.text for each in open_engine(run, EngineOptions()).translate(lines)]
    assert whole[0] != " ".join(whole[1:])
    files.write_json(run / "report.json", {"usual_lengths": {"sentence": 99, "several": 0}})
    exports = [export.export_model(run, kind).path for kind in ("bundle", "ctranslate2")]
    for path in (run, *exports):
        found = [each.text for each in open_engine(path, EngineOptions()).translate(lines)]
        assert found[0] == " ".join(found[1:]), path
