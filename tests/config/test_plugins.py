"""Kinds of plug-ins are files, and a wrong kind is refused by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mt.config.plugins import FOLDERS, check_program, dotted_kinds, plugin, plugins, trust_kinds
from mt.errors import ModelError

MT = Path(__file__).parents[2] / "mt"


@pytest.mark.parametrize("section", FOLDERS)
def test_each_file_of_a_folder_is_a_kind(section):
    for kind in plugins(section):
        module = plugin(section, kind)
        assert Path(module.__file__) == MT / FOLDERS[section] / f"{kind}.py"
        if section != "engines":  # an engine is chosen by the files of a model
            assert module.Config.model_fields["kind"].default == kind


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("transfomer", r"unknown kind 'transfomer' \(did you mean transformer\?\)"),
        ("zzz", r"there are: mixture_of_heads, rnn, transformer"),
        ("no.such.module", "no.such.module cannot be imported"),
        ("mt.errors", "mt.errors has no Config"),
    ],
)
def test_a_wrong_kind_is_refused_by_name(kind, message):
    trust_kinds([kind])
    with pytest.raises(ValueError, match=message):
        plugin("models", kind)


def test_a_dotted_kind_is_a_module_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "my_plugin.py").write_text("class Config: pass\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "own_model.py").write_text("class Config: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="MODEL-TRUST"):
        plugin("models", "package.own_model")
    assert "package.own_model" not in sys.modules
    trust_kinds(dotted_kinds({"model": [{"kind": "package.own_model"}]}))
    module = plugin("models", "package.own_model")
    assert Path(module.__file__) == tmp_path / "package" / "own_model.py"


def test_a_program_is_started_only_if_the_user_has_named_it_with_its_arguments():
    with pytest.raises(ModelError, match=r"MODEL-TRUST.*a program to start: \./x --y"):
        check_program(["./x", "--y"], "evaluation")
    named = {"evaluation": {"metrics": ["bleu", {"kind": "command", "run": ["./x", "--y"]}]}}
    trust_kinds(dotted_kinds(named))
    check_program(("./x", "--y"), "evaluation")
    for other in (["./x"], ["./x --y"], ["./x", "--y", "z"]):
        with pytest.raises(ModelError, match="MODEL-TRUST"):
            check_program(other, "evaluation")
