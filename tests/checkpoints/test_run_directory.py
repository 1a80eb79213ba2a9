"""Runs are opened by what they contain."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from saved_runs import saved

from mt.checkpoints import checkpoint, run_directory
from mt.errors import ModelError


def test_open_run_names_what_there_is(tmp_path, vocabulary):
    with pytest.raises(ModelError, match="no such run"):
        run_directory.open_run(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="not a run"):
        run_directory.open_run(tmp_path)
    saved(tmp_path, vocabulary, 5)
    with pytest.raises(ModelError, match="there are: step-00000005"):
        run_directory.open_run(tmp_path, "step-6")


def test_a_copied_run_still_opens(tmp_path, vocabulary):
    """RUN/best names a folder in the run: the run can be moved."""
    (tmp_path / "a").mkdir()
    folder = saved(tmp_path / "a", vocabulary, 5)
    run_directory.mark_best(tmp_path / "a", folder)
    shutil.move(tmp_path / "a", tmp_path / "b")
    best = run_directory.best_checkpoint(tmp_path / "b")
    assert best == tmp_path / "b" / "checkpoints" / folder.name
    assert checkpoint.integrity_error(best) is None


def link_of_earlier_versions(run, folder):
    (run / "best").symlink_to(f"checkpoints/{folder.name}")


def copy_of_a_link(run, folder):
    shutil.copytree(folder, run / "best")


@pytest.mark.parametrize(
    "mark", [run_directory.mark_best, link_of_earlier_versions, copy_of_a_link]
)
@pytest.mark.parametrize("name", ["best", "./best", "link", "checkpoints/step-00000005", "."])
def test_a_checkpoint_is_known_however_its_path_is_spelled(
    tmp_path, vocabulary, mark, name, monkeypatch
):
    run = tmp_path / "run"
    run.mkdir()
    folder = saved(run, vocabulary, 5)
    saved(run, vocabulary, 9)
    mark(run, folder)
    monkeypatch.chdir(run)
    Path("link").symlink_to("checkpoints/step-00000005")
    for path in (Path(name), run / name):
        where, chosen = run_directory.locate(path)
        assert where.resolve() == run.resolve()
        chosen = chosen or run_directory.choose_checkpoint(where, None)
        assert checkpoint.read_state(chosen).step == 5
        assert run_directory.is_run(path)
    run_directory.mark_best(run, run / "checkpoints" / "step-00000009")
    assert run_directory.best_checkpoint(run).name == "step-00000009"
