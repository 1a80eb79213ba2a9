"""data.lock: sorted, written whole, and never trusted blindly."""

from __future__ import annotations

import json

import pytest
from pydantic import TypeAdapter, ValidationError

from mt.config import schema
from mt.config.section import input_files, map_input_files
from mt.data.data_lock import Pin, find_pin, read_pins, record_pin
from mt.errors import DownloadError

PIN = Pin(3, "ab" * 32, "v1")


def test_what_is_recorded_is_found(tmp_path):
    path = tmp_path / "data.lock"
    for name in ("b", "a"):
        record_pin(path, f"https://x/{name}", PIN)
    assert find_pin(path, "https://x/a") == PIN
    assert find_pin(path, "https://x/c") is None
    assert list(json.loads(path.read_text())) == ["https://x/a", "https://x/b"]


def test_a_secret_in_a_url_is_not_recorded(tmp_path):
    path = tmp_path / "data.lock"
    record_pin(path, "https://x/a?token=planted", PIN)
    assert "planted" not in path.read_text()
    assert find_pin(path, "https://x/a?token=another") == PIN


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"u": 1}', '{"u": {}}', '{"u": {"bytes": "1"}}', "[" * 100_000]
)
def test_a_damaged_file_is_refused_and_kept(tmp_path, text):
    path = tmp_path / "data.lock"
    path.write_text(text)
    for use in (lambda: read_pins(path), lambda: record_pin(path, "https://x/a", PIN)):
        with pytest.raises(DownloadError) as error:
            use()
        assert str(path) in str(error.value)
    assert path.read_text() == text


def source(folder, **values):
    section = {"kind": "opus", "name": "x", "languages": {"source": "en", "target": "de"}, **values}
    return TypeAdapter(schema.Source).validate_python(section, context={"folder": folder})


def test_it_lies_beside_the_recipe_and_is_no_input(tmp_path):
    config = source(tmp_path)
    assert config.lock == str(tmp_path / "data.lock")
    assert input_files(config) == {}
    assert input_files(config, records=True) == {"lock": config.lock}
    assert map_input_files(config, lambda path: f"/moved{path}").lock == f"/moved{config.lock}"


def test_a_recipe_can_have_no_other_file_written(tmp_path):
    with pytest.raises(ValidationError):
        source(tmp_path, lock="../.bashrc")
