"""Fixtures of the tests of this folder."""

from __future__ import annotations

import pytest
from resumable_run import written
from small_steps import made

from mt.config import recipe
from mt.runtime import files
from mt.runtime.distributed import SINGLE
from mt.runtime.signals import StopRequest
from mt.training import setup
from mt.training.reporter import Reporter


@pytest.fixture
def step(vocabulary):
    return made(vocabulary)


def built_run(folder, **changes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MT_CACHE", str(folder / "cache"))
        loaded, _ = recipe.load(written(folder, **changes))
        report = Reporter(folder / "run", interactive=False)
        files.make_folder(folder / "run")
        yield setup.build_run(loaded, folder / "run", StopRequest(SINGLE), report, SINGLE)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A run of the demo before its first update, and its state."""
    yield from built_run(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def built_guided(tmp_path_factory):
    """The same with guided alignment."""
    yield from built_run(tmp_path_factory.mktemp("guided"), objective__alignment_weight=0.2)
