"""Runs are opened by what they contain."""

from __future__ import annotations

import shutil

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
    """RUN/best is a relative link: the folder can be moved."""
    (tmp_path / "a").mkdir()
    folder = saved(tmp_path / "a", vocabulary, 5)
    run_directory.mark_best(tmp_path / "a", folder)
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert checkpoint.integrity_error((tmp_path / "b" / "best").resolve()) is None
