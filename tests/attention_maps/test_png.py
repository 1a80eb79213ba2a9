"""The picture of attention maps."""

from __future__ import annotations

import sys

import pytest
from shown_maps import SOURCE, shown


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
