"""Whatever is wrong with a file of a model is one ModelError with its name."""

from __future__ import annotations

import json
import os
import zipfile

import pytest

from mt.errors import ModelError
from mt.runtime import model_files
from mt.runtime.model_files import JsonObject


class Point(JsonObject):
    x: int
    y: float | None = None


WRONG = {
    "nothing": b"",
    "half a value": b'{"x": 1',
    "no UTF-8": b'{"x": "\xff"}',
    "NaN": b'{"x": 1, "y": NaN}',
    "infinity": b'{"x": 1, "z": [-Infinity]}',
    "too large a number": b'{"x": 1, "y": 1e999}',
    "too many digits": b'{"x": ' + b"9" * 5000 + b"}",
    "too deep for Python": b"[" * 100_000,
    "too deep": b'{"x": 1, "z": ' + b"[" * 40 + b"]" * 40 + b"}",
    "half a character": b'{"x": 1, "z": "\\ud800"}',
    "half a character in a key": b'{"x": 1, "\\ud800": 1}',
    "no object": b"[1]",
    "a missing key": b'{"y": 1.0}',
    "a text for a number": b'{"x": "1"}',
    "a boolean for a number": b'{"x": true}',
    "a fraction for a whole number": b'{"x": 1.5}',
    "nothing for a number": b'{"x": null}',
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_refused_with_the_name_of_the_file(what, tmp_path):
    path = tmp_path / "point.json"
    path.write_bytes(WRONG[what])
    with pytest.raises(ModelError, match=rf"error\[CODE\] {path}: damaged \(") as error:
        model_files.read_json(path, Point, code="CODE", advice="mend it")
    assert len(str(error.value).splitlines()) == 2


def test_what_is_right_is_read_whole(tmp_path):
    path = tmp_path / "point.json"
    value = {"x": 1, "y": 2, "more": ["ü", {"z": None}]}
    path.write_text(json.dumps(value), encoding="utf-8")
    assert model_files.read_json(path, Point) == value
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(path, "point.json")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert model_files.read_json(zipfile.Path(archive) / "point.json", Point) == value


def test_a_newer_format_is_said_whatever_its_keys_are(tmp_path):
    path = tmp_path / "point.json"
    path.write_text('{"format": 2}')
    with pytest.raises(ModelError, match=r"error\[AN-NEWER\].*format 2, this one reads 1"):
        model_files.read_json(path, Point, code="AN-ERROR", newest=1)


def test_only_a_regular_file_is_opened(tmp_path):
    pipe, loop, link = tmp_path / "pipe", tmp_path / "loop", tmp_path / "link"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    link.symlink_to(tmp_path / "nowhere")
    for path in (pipe, loop, link, tmp_path, tmp_path / "nowhere", tmp_path / ("x" * 300)):
        with pytest.raises(ModelError) as error:
            model_files.read_bytes(path)
        assert str(path)[:200] in str(error.value)


def test_a_file_is_not_read_beyond_its_limit(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(b"x" * 11)
    assert model_files.read_bytes(path, 11) == b"x" * 11
    with pytest.raises(ModelError, match="larger than 10 bytes"):
        model_files.read_bytes(path, 10)


def test_a_list_of_texts_has_texts_only(tmp_path):
    path = tmp_path / "names.json"
    for content, sound in (('["a", "b"]', True), ('["a", 1]', False), ("{}", False)):
        path.write_text(content)
        if sound:
            assert model_files.read_json_texts(path) == ["a", "b"]
            continue
        with pytest.raises(ModelError, match="list of texts"):
            model_files.read_json_texts(path)


def test_a_log_without_what_a_crash_cut_short(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"x": 1}\n{"x": 2, "y\n\n{"x": NaN}\n{"x": 3}\n{"x"')
    assert [line["x"] for line in model_files.read_json_lines(path, Point)] == [1, 3]
    path.write_bytes(b'{"x": 1}\n{"x": "2"}\n')
    with pytest.raises(ModelError, match=r"log\.jsonl:2: damaged \(x:"):
        list(model_files.read_json_lines(path, Point))
