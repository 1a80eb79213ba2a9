"""Each short command runs, and its result is the file or the line that it promises."""

from __future__ import annotations

import shutil

import pytest
import yaml
from resumable_run import RECIPE

from mt.checkpoints import bundle, run_directory
from mt.cli import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The recipe of a run of two updates with a trace; its run is beside it."""
    folder = tmp_path_factory.mktemp("trained")
    values = {**RECIPE, "training": {"max_steps": 2, "validate_sentences": 1}}
    values["schedule"] = {"kind": "constant", "warmup_steps": 0}
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MT_CACHE", str(folder / "cache"))
        assert main.run(["train", str(recipe), "--run", str(folder / "run"), "--trace"]) == 0
    return recipe


@pytest.fixture
def own_run(trained, tmp_path, monkeypatch):
    """A copy of the run, with the cache of its data."""
    monkeypatch.setenv("MT_CACHE", str(trained.parent / "cache"))
    shutil.copytree(trained.parent / "run", tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def command(capsys, *arguments):
    code = main.run([*map(str, arguments)])
    return code, *capsys.readouterr()


def test_train_leaves_a_run_of_as_many_updates(trained):
    assert run_directory.open_run(trained.parent / "run", "last").step == 2


def test_prepare_fills_the_cache_once(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MT_CACHE", str(tmp_path / "cache"))
    code, out, _ = command(capsys, "prepare", trained)
    assert (code, out) == (0, "")
    (entry,) = (path for path in (tmp_path / "cache" / "corpora").iterdir() if path.is_dir())
    assert (entry / "report.json").is_file()
    code, _, err = command(capsys, "prepare", trained)
    assert code == 0
    assert "from the cache" in err


def test_diff_trace_finds_a_run_equal_to_itself_and_not_to_a_shorter_one(own_run, capsys):
    code, out, _ = command(capsys, "diff-trace", own_run, own_run)
    assert code == 0
    assert out.startswith("equal: 2 updates compared")
    lines = (own_run / "trace.jsonl").read_text().splitlines(keepends=True)
    shorter = own_run / "shorter.jsonl"
    shorter.write_text("".join(lines[:1]))
    code, _, _ = command(capsys, "diff-trace", own_run, shorter)
    assert code == 8


def test_export_writes_a_bundle_of_the_run(own_run, tmp_path, capsys):
    code, out, _ = command(capsys, "export", own_run, "--to", "bundle", "-o", tmp_path / "x.mt")
    assert code == 0
    assert "x.mt" in out
    assert bundle.open_loaded_model(tmp_path / "x.mt").step == 2


def test_prune_makes_a_smaller_run(own_run, tmp_path, capsys):
    code, out, _ = command(capsys, "prune", own_run, "--ff", "50%", "-o", tmp_path / "small")
    assert code == 0
    assert out
    weights = [run_directory.open_run(run).model() for run in (own_run, tmp_path / "small")]
    before, after = (sum(p.numel() for p in model.parameters()) for model in weights)
    assert after < before


def test_shortlist_is_written_into_the_run(own_run, capsys):
    before = {path.name for path in own_run.iterdir()}
    code, out, err = command(capsys, "shortlist", own_run, "--pairs", "50")
    assert (code, out) == (0, "")
    assert "search.shortlist=true" in err
    (made,) = {path.name for path in own_run.iterdir()} - before
    assert "shortlist" in made
