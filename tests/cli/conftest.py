"""Fixtures of the tests of this folder."""

import pytest
from command_recipe import RECIPE


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a recipe in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MT_DEBUG", raising=False)
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path
