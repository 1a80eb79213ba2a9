"""Runs and caches that cannot be written: what needs no place to write works all the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny_run
from read_only import make_read_only
from resumable_run import bits, written

from mt.cli import main
from mt.config import recipe


@pytest.fixture
def archive(run, tmp_path, monkeypatch):
    """The tiny run, in a folder that cannot be written; the working directory can."""
    shutil.copytree(run.parent, tmp_path / "archive")
    shutil.rmtree(tmp_path / "archive" / "run" / "hypotheses", ignore_errors=True)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "lines").write_text("".join(f"{s}\n" for s in tiny_run.SOURCES))
    monkeypatch.chdir(tmp_path / "work")
    make_read_only(monkeypatch, tmp_path / "archive")
    return tmp_path / "archive" / "run"


@pytest.fixture
def demo(folder):
    """A recipe that needs no files."""
    written(folder)
    return folder


@pytest.fixture
def homeless(monkeypatch):
    """A user id that no one knows, without HOME: what a container often has."""

    def home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("MT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", home)


def test_a_read_only_run_is_evaluated_and_its_translations_are_not_kept(archive, capsys):
    assert main.run(["eval", str(archive), "--json", "--show", "1"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out).keys() == {"test_one", "test_two"}
    (warning,) = (line for line in err.splitlines() if "NOT-KEPT" in line)
    assert f"{archive}/hypotheses" in warning
    assert "the translations are not kept" in warning
    assert err.count(f"source       {tiny_run.SOURCES[0]}") == 2


@pytest.mark.parametrize(
    "arguments",
    [
        "translate RUN/checkpoints/step-00000007 -i lines -o out",
        "score RUN --source lines --target lines", "attention RUN --source Dogs.",
    ],
)  # fmt: skip
def test_what_reads_a_run_does_not_write_into_it(archive, homeless, arguments, capsys):
    """Nor does it need a cache."""
    assert main.run(arguments.replace("RUN", str(archive)).split()) == 0, capsys.readouterr().err


@pytest.mark.parametrize("arguments", ["prepare recipe.yaml", "cache", "cache --clear"])
def test_without_a_place_for_the_cache_the_error_names_mt_cache(demo, homeless, arguments, capsys):
    assert main.run(arguments.split()) == 5
    first, second = capsys.readouterr().err.splitlines()[-2:]
    assert first.startswith("mt: error[CACHE] MT_CACHE: ")
    assert second == "set MT_CACHE to a folder that you may write to"


def test_a_read_only_cache_gives_what_is_in_it(demo, monkeypatch, capsys):
    assert main.run(["prepare", "recipe.yaml"]) == 0
    make_read_only(monkeypatch, demo / "cache")
    assert main.run(["prepare", "recipe.yaml"]) == 0
    capsys.readouterr()
    assert main.run(["prepare", "recipe.yaml", "--set", "data.max_length=77"]) == 5
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"mt: error[PERMISSION] {demo}/cache/corpora: ")
    assert "MT_CACHE" in second


def test_training_on_in_a_read_only_run_is_refused_and_changes_nothing(demo, monkeypatch, capsys):
    once = "training.max_epochs=1"
    train = ["train", "recipe.yaml", "--run", "run", "--set", "schedule.kind=constant", "--set"]
    assert main.run([*train, once]) == 0
    saved = bits(demo / "run")
    capsys.readouterr()
    with monkeypatch.context() as patch:
        make_read_only(patch, demo / "run")
        assert main.run([*train, "training.max_epochs=2"]) == 5
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("mt: error[PERMISSION] run")
    assert second == "choose a folder that you may write to"
    assert bits(demo / "run") == saved
    assert main.run([*train, "training.max_epochs=2"]) == 0


def test_the_trace_of_a_bug_finds_another_place(demo, homeless, monkeypatch, capsys):
    def load(*_):
        raise KeyError("oops")

    monkeypatch.setattr(recipe, "load", load)
    monkeypatch.setattr("tempfile.tempdir", str(demo))
    assert main.run(["config", "recipe.yaml"]) == 1
    (log,) = demo.glob("mt-crash-*.log")
    assert capsys.readouterr().err.splitlines()[-1].endswith(str(log))
    log.unlink()
    monkeypatch.setattr("tempfile.tempdir", str(demo / "recipe.yaml" / "x"))
    assert main.run(["config", "recipe.yaml"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("the trace that MT_DEBUG=1 shows")
