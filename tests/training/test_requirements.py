"""What a recipe lacks on this machine."""

import builtins

import pytest
import sound_recipe

from mt.config import recipe
from mt.data.language_id import langid
from mt.training.requirements import missing_requirements


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sound_recipe.write({**sound_recipe.DATA, "recipe.yaml": sound_recipe.RECIPE})
    return lambda *sets: recipe.load(tmp_path / "recipe.yaml", sets)[0]


def codes(settings):
    return [error.code for error in missing_requirements(settings)]


def test_a_sound_recipe_lacks_nothing(load):
    assert codes(load()) == []


def test_each_missing_file_is_named_once(load, tmp_path):
    for name in ("train.en", "train.de"):
        (tmp_path / name).unlink()
    found = missing_requirements(load())
    assert [error.code for error in found] == ["DATA-FILE"] * 2
    assert "train.en" in str(found[0])


def test_a_device_that_is_not_there(load):
    assert codes(load("runtime.device=cuda:7")) == ["NO-GPU"]


def test_a_package_that_is_not_installed(load, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name.split(".")[0] in ("py3langid", "fastchrf"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    langid.cache_clear()
    settings = load("data.clean=[{kind: language}]")
    assert codes(settings) == ["CLEAN-PACKAGE"]
