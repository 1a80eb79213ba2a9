"""A disk that fills up at any write: a clear error, no litter, and what was there stays whole.

The disk is a real one, in memory, with a chosen number of free pages. When it has room again the
same command ends as if it had been there from the beginning.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from pathlib import Path

import pytest
import small_disk
import tiny_run
from distilled_runs import CONFIG, FAST
from resumable_run import written

from mt.checkpoints import checkpoint

MOST_SIZES = 24
"""Sizes up to what a command writes that are tried; each where it writes fewer pages."""
RESULTS = (".safetensors", ".bin", ".model", ".tokens", ".mt", "out", "best")
"""What a command leaves, but for times."""
ONE = ["--threads", "1", "--device", "cpu"]
COMMANDS = {
    "prepare": "prepare DATA/recipe.yaml",
    "train": "train DATA/recipe.yaml --run DISK/run",
    "resume": "train DATA/recipe.yaml --run DISK/run",
    "translate": "translate DATA/run -i DATA/train.en -o DISK/out --force --threads 1",
    "export bundle": "export DATA/run --to bundle -o DISK/run.mt",
    "export ctranslate2": "export DATA/run --to ctranslate2 -o DISK/folder",
    "export huggingface": "export DATA/run --to huggingface -o DISK/folder",
    "prune": "prune DATA/run --heads 50% -o DISK/small",
    "distill": f"distill DATA/run DATA/student.yaml --run DISK/student {' '.join(FAST)}",
    "shortlist": "shortlist DISK/run",
    "backtranslate": "backtranslate DATA/run DATA/train.en -o DISK/pairs --threads 1",
}
"""DISK is the small disk; DATA has room. `prepare` has its cache on the small disk."""
TRAINING = {"training__max_epochs": 1, "training__save_every": 3, "training__keep_last": 1}


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(content(path)).hexdigest()
        for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"
    }  # fmt: skip


def content(path: Path) -> bytes:
    """The bytes of a file; of a shortlist without its metadata, whose order is by chance."""
    data = path.read_bytes()
    named = path.name == "shortlist.safetensors"
    return data[8 + int.from_bytes(data[:8], "little") :] if named else data


def on_small_disk(disk, before, pages, command, cache, report):
    """Run a command on a disk with so many free pages, then with room; report on both."""
    from mt.cli import main
    from mt.training import loop

    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[pages % len(cores)]})  # threads wait for each other
    os.chdir(disk.parent)
    os.environ["MT_CACHE"] = str(cache)
    loop.RETRY_SECONDS = ()
    small_disk.mount(disk)
    shutil.copytree(before, disk, dirs_exist_ok=True)
    small_disk.leave_free(disk, pages)
    start = small_disk.used_pages(disk)
    log = report.with_suffix(".log")
    handle = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    facts = {"code": main.run(command), "said": log.read_text()}
    facts["litter"] = [
        path.name for path in disk.rglob("*") if path.name.startswith((".tmp-", ".trash-"))
    ]
    facts["damaged"] = [
        str(path) for path in disk.glob("run/checkpoints/[!.]*") if checkpoint.integrity_error(path)
    ]
    facts["left"] = hashes(disk)
    small_disk.leave_free(disk, 10_000)
    facts |= {"again": main.run(command) if facts["code"] else 0, "end": hashes(disk)}
    facts["pages"] = small_disk.used_pages(disk) - start
    facts["all said"] = log.read_text()
    report.write_text(json.dumps(facts))


class SmallDisks:
    """Commands on small disks."""

    def __init__(self, folder, server):
        self.folder, self.server, self.number = folder, server, 0
        self.data = folder / "data"
        self.data.mkdir()
        recipe = tiny_run.make(self.data) / "config.yaml"
        text = recipe.read_text()
        assert "drop_overlap: true" in text
        recipe.write_text(text.replace("drop_overlap: true", "drop_overlap: false"))
        (self.data / "student.yaml").write_text(CONFIG)
        written(self.data, **TRAINING)

    def run(self, name, pages):
        """What became of a command on a disk with so many free pages."""
        self.number += 1
        disk, before = self.folder / "disk", self.before(name)
        disk.mkdir(exist_ok=True)
        report = self.folder / f"{self.number}.json"
        cache = disk / "cache" if name == "prepare" else self.folder / "cache"
        line = COMMANDS[name].replace("DATA", str(self.data)).replace("DISK", str(disk))
        order = (disk, before, pages, line.split(), cache, report)
        process = self.server.Process(target=on_small_disk, args=order)
        process.start()
        process.join(120)
        log = report.with_suffix(".log")
        assert process.exitcode == 0, (name, pages, log.exists() and log.read_text())
        return json.loads(report.read_text()), hashes(before)

    def before(self, name):
        """What is on the disk at first."""
        before = self.folder / f"before-{name}"
        if not before.exists():
            before.mkdir()
            if name == "translate":
                (before / "out").write_text("an earlier translation\n")
            elif name == "shortlist":
                shutil.copytree(self.data / "run", before / "run")
            elif name == "resume":
                self.stop_early(before / "run")
        return before

    def stop_early(self, run):
        """Train until a signal comes after the fifth update."""
        from resumable_run import attempt

        log = self.folder / "early.log"
        order = (self.data / "recipe.yaml", run, log, "update:5:term", self.folder / "cache")
        process = self.server.Process(target=attempt, args=order)
        process.start()
        process.join(60)
        assert process.exitcode == 143, log.read_text()

    def check(self, name, pages, whole):
        """The laws of a full disk; whether the disk was full."""
        facts, before = self.run(name, pages)
        where = (name, pages, facts["said"])
        assert "Traceback" not in facts["all said"], where
        assert (facts["litter"], facts["damaged"]) == ([], []), (where, facts["litter"])
        assert facts["again"] == 0, facts["all said"]
        results = [
            {file: digest for file, digest in each["end"].items() if file.endswith(RESULTS)}
            for each in (facts, whole)
        ]
        assert results[0] == results[1], where
        if facts["code"] == 0:
            return False
        assert facts["code"] == 5, where
        first, second = facts["said"].splitlines()[-2:]
        assert first.startswith("mt: error[DISK-FULL] "), where
        assert second
        if name not in ("resume", "train"):  # these add checkpoints, and delete old ones
            assert {file: facts["left"].get(file) for file in before} == before, where
        return True


@pytest.fixture(scope="module")
def disks(tmp_path_factory, process_server):
    small_disk.require()
    return SmallDisks(tmp_path_factory.mktemp("disks"), process_server)


@pytest.mark.parametrize(("name", "share"), [("resume", 0.5), ("translate", 0)])
def test_a_full_disk_loses_nothing(disks, name, share):
    whole, _ = disks.run(name, 10_000)
    assert whole["code"] == 0
    assert disks.check(name, int(share * whole["pages"]), whole)


@pytest.mark.torture
@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_fills_up_at_each_write(disks, name, figure):
    whole, _ = disks.run(name, 10_000)
    assert whole["code"] == 0, whole["said"]
    step, full = -(-max(1, whole["pages"]) // MOST_SIZES), list[int]()
    for pages in itertools.count(0, step):  # hidden files need room beside what they replace
        if disks.check(name, pages, whole):
            full.append(pages)
        elif pages > (full or [0])[-1] + 2 * step:
            break
    assert full
    figure(f"{name}: full at {len(full)} sizes, {step} pages apart, the last {full[-1]} pages")
