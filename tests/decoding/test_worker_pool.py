"""Several processes search as one: the same translations, errors told, none left behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_run

from mt.data.pairs import Pair
from mt.decoding.translate import check_processes, open_engine
from mt.decoding.types import EngineOptions
from mt.errors import ConfigError, MachineError, ModelError

ROOT = Path(__file__).parents[2]
LINES = [*tiny_run.SOURCES * 9, "", " ", *tiny_run.SOURCES[::-1]]


def options(**more):
    return EngineOptions(precision="fp32", **more)


@pytest.fixture
def pool(run):
    return open_engine(run, options(processes=2))


def test_processes_change_neither_translations_nor_scores(run, pool):
    one = open_engine(run, options(threads=1))
    prefixes = {"prefixes": ["Ein Ha "] * len(LINES)}
    for more in ({}, {"n_best": 2}, {"alignments": True}, prefixes):
        shared, alone = (list(e.translate(LINES, options(**more))) for e in (pool, one))
        for a, b in zip(shared, alone, strict=True):
            assert (a.text, a.tokens, a.prefix) == (b.text, b.tokens, b.prefix)
            assert a.truncated == b.truncated
            assert [n.text for n in a.alternatives] == [n.text for n in b.alternatives]
            assert a.score == pytest.approx(b.score, abs=1e-5)
            assert (a.alignment is None) == (b.alignment is None)
    pairs = [
        Pair(a, b, "en", "de", "test:1")
        for a, b in zip(tiny_run.SOURCES, tiny_run.TARGETS, strict=False)
    ]
    for a, b in zip(pool.score(pairs), one.score(pairs), strict=True):
        assert a.log_probability == pytest.approx(b.log_probability, abs=1e-4)


def test_a_process_that_is_killed_ends_the_command(pool):
    victim = pool.searcher.workers[0].process
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    with pytest.raises(MachineError, match="PROCESS-LOST") as told:
        list(pool.translate(LINES))
    assert told.value.exit_code == 5


def test_what_a_process_finds_wrong_is_reported_as_if_it_were_here(run, tmp_path):
    with pytest.raises(ModelError) as here:
        open_engine(run, options(checkpoint="step-77"))
    with pytest.raises(ModelError) as there:
        open_engine(run, options(checkpoint="step-77", processes=2))
    assert str(there.value) == str(here.value)
    with pytest.raises(ConfigError, match="--processes"):
        open_engine(run, options(processes=2, device="cuda"))


def test_no_process_outlives_its_engine(run):
    engine = open_engine(run, options(processes=2))
    processes = [worker.process for worker in engine.searcher.workers]
    del engine
    for process in processes:
        process.join(20)
        assert process.exitcode is not None


def test_the_parent_of_processes_imports_no_torch(run):
    code = (
        "import sys; from mt.cli import main as cli; code = cli.run(sys.argv[1:]); "
        "print('torch' in sys.modules, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "translate", str(run), "--processes", "2"],
        input="Dogs.\nGirls.\n", cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "False")
    assert done.stdout.count("\n") == 2


def test_only_a_file_of_some_size_is_shared_by_default(tmp_path):
    (tmp_path / "small").write_text("Dogs.\n", encoding="utf-8")
    (tmp_path / "large").write_text("Dogs.\n" * 100_000, encoding="utf-8")
    with open(tmp_path / "small", "rb") as small, open(tmp_path / "large", "rb") as large:
        assert check_processes(small) == 1
        assert 1 <= check_processes(large) <= 8
    assert check_processes(io.BytesIO(b"Dogs.\n" * 100_000)) == 1
