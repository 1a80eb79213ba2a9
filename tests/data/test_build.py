"""Building encoded corpora: processes, kills, failures and signals."""

import concurrent.futures
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import faults
import numpy as np
import pytest
from prepared_corpora import (
    BAD,
    GOOD,
    PREPARE,
    cached,
    quietly,
    recipe_of,
    write_pairs,
)

from mt.data import build
from mt.data.build import Spool
from mt.data.prepare import prepare
from mt.errors import MachineError, Stopped
from mt.runtime.lock import lock


def test_several_processes_give_what_one_gives(folder):
    generator = random.Random(1)
    many = [generator.choice([*GOOD, *itertools.chain(*BAD.values())]) for _ in range(6_500)]
    write_pairs(folder, "many", many)
    one = quietly(recipe_of(folder, train=("many",), size=380, processes=1))
    shutil.rmtree(folder.parent / "cache")
    three = quietly(recipe_of(folder, train=("many",), size=380, processes=3))
    assert three.train.digest == one.train.digest
    assert three.folder == one.folder
    assert three.report["corpora"] == one.report["corpora"]
    assert sum(one.report["corpora"]["train.0"]["dropped"].values()) > 100


@pytest.mark.parametrize("streaming", [False, True])
def test_the_report_has_the_usual_lengths(folder, streaming):
    several = [(f"{a} {b}", f"{c} {d}") for (a, c), (b, d) in itertools.pairwise(GOOD[:8])]
    for name, pairs in (("plain", GOOD), ("some", [*GOOD, *several])):
        write_pairs(folder, name, pairs)
    plain, some = (
        quietly(recipe_of(folder, train=(name,), streaming=streaming)) for name in ("plain", "some")
    )
    pieces = sorted(map(len, plain.vocabulary.encode_source([line for line, _ in GOOD])))
    assert plain.report["usual_lengths"] == {"sentence": pieces[-1], "several": 0}
    lengths = sorted(map(len, some.vocabulary.encode_source([line for line, _ in several])))
    # One line in a hundred: 7 of 655.
    assert some.report["usual_lengths"] == {"sentence": lengths[-1], "several": lengths[0]}


def test_what_a_killed_process_left_is_swept(folder):
    first = quietly(recipe_of(folder))
    corpora = first.folder.parent
    for name in (f".tmp-{first.folder.name}-999999", ".tmp-0123456789abcdef-99", ".trash-ab-1"):
        (corpora / name / "work").mkdir(parents=True)
    held = ".tmp-fedcba9876543210-7"
    (corpora / held).mkdir()
    with lock(corpora / "fedcba9876543210.lock"):
        quietly(recipe_of(folder))
        assert [name for name in cached(folder) if name.startswith(".")] == [held]


def start(python, folder, fault="", waits_at=""):
    made = recipe_of(folder).model_dump(mode="json", include={"languages", "data", "vocabulary"})
    made["training"] = {"max_steps": 10_000}
    (folder / "recipe.yaml").write_text(json.dumps(made))
    environment = faults.environment(fault, str(Path(__file__).parents[2]))
    environment["MT_WAITS_AT"] = waits_at
    return subprocess.Popen(
        [python, "-c", PREPARE, str(folder / "recipe.yaml")], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process):
    out, told = process.communicate(timeout=300)
    return process.returncode, out.strip(), told


def test_many_at_once_build_once(folder, python):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: ended(start(python, folder)), range(8)))
    assert {code for code, _, _ in done} == {0}
    assert len({digest for _, digest, _ in done}) == 1
    assert sum("learning a vocabulary" in told for _, _, told in done) == 1


def test_a_process_that_encodes_and_is_killed_is_reported(folder, monkeypatch):
    parent, encode = os.getpid(), build._Encoder.encode

    def die(encoder, chunk):
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(encoder, chunk)

    monkeypatch.setattr(build, "_MIN_PARALLEL_PAIRS", 1)
    monkeypatch.setattr(build, "CHUNK_PAIRS", 100)
    monkeypatch.setattr(build.encode, "CHUNK_PAIRS", 100)
    monkeypatch.setattr(build._Encoder, "encode", die)
    with pytest.raises(MachineError, match="WORKER-DIED") as error:
        quietly(recipe_of(folder, processes=2))
    assert error.value.exit_code == 5
    assert not [name for name in cached(folder) if not name.endswith(".lock")]


WAITING_WORKERS = """
import os, select
from pathlib import Path
from mt.data import build
build._MIN_PARALLEL_PAIRS = 1
build.CHUNK_PAIRS = build.encode.CHUNK_PAIRS = 100
def wait(encoder, chunk):
    Path(os.environ["MARK"]).touch()
    while True:
        select.select([], [], [])
build._Encoder.encode = wait
"""


def waiting_group(folder):
    """A process, leader of its group, whose two workers wait for ever."""
    made = recipe_of(folder, processes=2).model_dump(
        mode="json", include={"languages", "data", "vocabulary"}
    )
    (folder / "recipe.yaml").write_text(json.dumps({**made, "training": {"max_steps": 10_000}}))
    mark = folder / "mark"
    environment = faults.environment("", str(Path(__file__).parents[2])) | {"MARK": str(mark)}
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING_WORKERS + PREPARE, str(folder / "recipe.yaml")],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    while not mark.exists():
        assert process.poll() is None, process.stderr.read()
    return process


def test_a_signal_to_all_processes_of_a_group_ends_it_cleanly(folder):
    """As of a scheduler; no process is left."""
    process = waiting_group(folder)
    os.killpg(process.pid, signal.SIGTERM)
    code, _, said = ended(process)  # its streams end when the last of the group has
    assert code == 143, said
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert not [name for name in cached(folder) if not name.endswith(".lock")]


def test_workers_end_with_a_process_that_is_killed(folder):
    process = waiting_group(folder)
    process.kill()
    process.communicate(timeout=60)  # its streams end when the last of the group has


@pytest.mark.parametrize(("fault", "code"), [
    ("rename:1:kill", -signal.SIGKILL), ("fsync:3:kill", -signal.SIGKILL),
    ("create:2:enospc", 5), ("write:2:enospc", 5), ("rename:1:eio", 5),
])  # fmt: skip
def test_a_failure_leaves_nothing_under_a_final_name(folder, python, fault, code):
    found, _, told = ended(start(python, folder, fault))
    assert found == code, told
    assert not [name for name in cached(folder) if len(name) == 16]
    assert "Traceback" not in told
    if code > 0:
        assert not [name for name in cached(folder) if name.startswith(".")]
    quietly(recipe_of(folder))
    assert [len(name) for name in cached(folder) if not name.endswith(".lock")] == [16]


@pytest.mark.parametrize(
    ("number", "phase"), [(signal.SIGINT, "reading"), (signal.SIGTERM, "encoding")]
)
def test_a_signal_ends_it_cleanly(folder, python, number, phase):
    write_pairs(folder, "train", GOOD * 300)
    process = start(python, folder, waits_at=phase)
    for line in process.stderr:
        if line.startswith(phase):
            process.send_signal(number)
            break
    code, _, told = ended(process)
    assert code == 128 + number, told
    left = [name for name in cached(folder) if not name.endswith(".lock")]
    # One that comes inside a destructor, where Python tells of it and drops it, is obeyed at the
    # end, when all is there: what counts is what is said last.
    last = told.rstrip().splitlines()[-1]
    assert ("nothing was kept" in last) == (left == []), told
    assert ("what was prepared is kept" in last) == ([len(name) for name in left] == [16]), told


def test_a_signal_within_raises_and_handlers_come_back(folder):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def stop(line):
        if line.startswith("encoding"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped) as error:
        prepare(recipe_of(folder), stop)
    assert error.value.exit_code == 143
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_is_not_swallowed_by_what_swallows_exceptions(folder):
    """As tqdm's monitor does, which `datasets` starts, on a slow machine."""

    def stop(line):
        if line.startswith("reading"):
            with contextlib.suppress(Exception):
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped, match="nothing was kept"):
        prepare(recipe_of(folder), stop)
    assert not [name for name in cached(folder) if not name.endswith(".lock")]


def test_a_signal_in_a_destructor_is_remembered(folder, monkeypatch):
    """Where Python drops every exception."""
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: None)

    class Falling:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    def stop(line):
        if line.startswith("reading"):
            Falling()

    with pytest.raises(Stopped, match="what was prepared is kept"):
        prepare(recipe_of(folder), stop)


def test_a_sample_has_the_lines_at_its_rows_without_empty_ones(tmp_path):
    source = [f"source {n}" if n % 5 else "" for n in range(23)]
    target = [f"target {n}" for n in range(23)]
    spool = Spool(tmp_path / "spool")
    bounds = [(0, 7), (7, 8), (8, 20), (20, 23)]
    spool.fill((0, (source[a:b], target[a:b])) for a, b in bounds)
    for chunk, (a, b) in enumerate(bounds):
        assert spool.read(chunk) == (source[a:b], target[a:b])
    for rows in ([], [0], [6, 7, 8], [1, 4, 5, 19, 20, 22], list(range(23))):
        chosen = np.array(rows, np.int64)
        assert list(spool.sample("target", chosen)) == [target[row] for row in rows]
        assert list(spool.sample("source", chosen)) == [source[r] for r in rows if source[r]]
