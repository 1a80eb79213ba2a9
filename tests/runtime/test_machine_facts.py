"""What `mt doctor` says of the machine."""

import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from mt.runtime import machine_facts
from mt.runtime.machine_facts import PURPOSES, extras, list_facts

ROOT = Path(__file__).parents[2]


def test_every_extra_of_the_package_has_its_purpose():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) - {"dev"} == set(PURPOSES)


def test_an_extra_that_names_another_one_has_its_packages(monkeypatch):
    requirements = {
        "mt": ['sacrebleu[ja]; extra == "japanese"', 'fastchrf>=0.2; extra == "mbr"', "numpy"],
        "sacrebleu": ["regex", "mecab-python3>=1; extra == 'ja'", "ipadic>=1; extra == 'ja'"],
    }
    monkeypatch.setattr(metadata, "requires", requirements.__getitem__)
    assert extras() == {"japanese": ["mecab-python3", "ipadic"], "mbr": ["fastchrf"]}


def test_what_is_not_installed_is_said_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(machine_facts, "extras", lambda: {"data": ["no-such-package"]})
    assert dict(list_facts())["extra data"].startswith("pip install 'mt[data]'; for ")


@pytest.mark.parametrize("name", ["MT_OFFLINE", "HF_HUB_OFFLINE"])
def test_a_forbidden_network_is_said(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert dict(list_facts())["network"] == f"forbidden by {name}"


def test_a_cache_that_cannot_be_written_is_said(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MT_CACHE", str(tmp_path / "file" / "cache"))
    assert "set MT_CACHE" in dict(list_facts())["cache"]


def test_the_facts_have_names_and_values():
    facts = list(list_facts())
    assert len(dict(facts)) == len(facts)
    assert all(name and value for name, value in facts)
    assert {"mt", "torch", "cpu", "device", "memory", "disk here", "cache"} <= dict(facts).keys()
