"""Fixtures of the tests of this folder."""

import pytest
from sound_recipe import DATA, RECIPE, write


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a sound recipe and sound data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MT_DEBUG", raising=False)
    write({"recipe.yaml": RECIPE, **DATA})
    return tmp_path
