"""Models damaged or forged at random: they translate as before, or their file is named.

Each batch of cases runs in a process of its own, which may neither die nor grow.
"""

from __future__ import annotations

import functools
import json
import random
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

import damages
import pytest
import tiny_run
import typer

from mt.checkpoints import bundle, run_directory
from mt.export import export

STEP = "checkpoints/step-00000007"
RUN_FILES = [
    "config.yaml", "resolved.json", "report.json", "best", "vocabulary.json", "vocabulary.model",
    *(f"{STEP}/{name}" for name in ("state.json", "MANIFEST.json", "model.safetensors")),
]  # fmt: skip
FOLDER_FILES = ["mt.json", "config.json", "shared_vocabulary.json", "vocabulary.json",
                "vocabulary.model", "model.bin"]  # fmt: skip
WITH_CHECKSUM = ("state.json", "vocabulary.model", "model.safetensors", "model.bin")
"""Any change of these is found; in a bundle, unless it is in what a zip says of its members."""
WITHOUT_CHECKSUM = ("config.yaml",)
"""Its owner may change it: another value is another translation."""
MEMORY = 400 << 20
"""Bytes that a batch may need beyond its first translation."""
CASES = {"run": 300, "bundle": 100, "folder": 100}
MANY = {"run": 5_000, "bundle": 2_000, "folder": 2_000}
BATCH = 500


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A run, its bundle and its CTranslate2 folder."""
    here = tmp_path_factory.mktemp("models")
    run = tiny_run.make(here)
    run_directory.mark_best(run, run / STEP)
    settings = run_directory.read_recipe(run).model_dump(mode="json", exclude_defaults=True)
    settings["search"] = {"kind": "greedy", "max_length_ratio": 0.1, "max_length_extra": 2}
    (run / "config.yaml").write_text(json.dumps(settings), encoding="utf-8")  # read faster
    (run / "report.json").write_text('{"corpora": {}}', encoding="utf-8")
    opened = run_directory.open_run(run)
    bundle.write_bundle(here / "model.mt", opened, opened.model())
    export.export_model(run, "ctranslate2", here / "folder")
    (here / "text").write_text("A boy eats an apple.\n", encoding="utf-8")
    return here


def open_files(kind: str, folder: Path) -> damages.ModelFiles:
    if kind == "run":
        return damages.RunFiles(folder / "run", RUN_FILES)
    if kind == "bundle":
        return damages.BundleFiles(folder / "model.mt")
    return damages.FolderFiles(folder / "folder", FOLDER_FILES)


@dataclass(frozen=True)
class Order:
    """The cases of one batch, and where it writes what it found."""

    kind: str
    seed: int
    numbers: range
    folder: Path
    results: Path


def translate(path: Path) -> tuple[int, str, str]:
    common = ["-i", str(path.with_name("text")), "--threads", "1", "--device", "cpu"]
    with damages.without_power_over_files():
        return damages.run_captured(["translate", str(path), *common])


def fault(files: damages.ModelFiles, what: str, same: bool, result, whole: str) -> str | None:
    """Why the end of a command is not as promised; None when it is."""
    code, out, err = result
    if code not in (0, 4, 5) or "Traceback" in err:
        return f"exit code {code}"
    if not err.replace("\n", "").isprintable():
        return "control characters"
    if code != 0:
        named = str(files.path) in err or "MODEL-NAN" in err
        return None if named and err.startswith("mt: error[") else "the model is not named"
    if "forged" in what or what.startswith(WITHOUT_CHECKSUM):
        return None
    if what.partition(":")[0].endswith(WITH_CHECKSUM) and not same:
        return "not found"
    return None if out == whole else "another translation"


def run_batch(order: Order) -> None:
    """Translate with each changed model; the line of a case is written before it begins."""
    import torch

    torch.set_num_threads(1)
    typer.main.get_command = functools.cache(typer.main.get_command)
    folder = order.folder.parent / f"{order.kind}-{order.numbers.start}"
    shutil.copytree(order.folder, folder, symlinks=True)
    files = open_files(order.kind, folder)
    code, whole, err = translate(files.path)
    assert (code, whole.count("\n")) == (0, 1), err
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    soft = before + 8 * MEMORY  # of addresses, which are not all used
    resource.setrlimit(resource.RLIMIT_AS, (soft, soft))
    for number in order.numbers:
        draw = random.Random(f"{order.seed} {order.kind} {number}")
        with open(order.results, "a", encoding="utf-8") as log:
            log.write(f"\n{number}\t")
            log.flush()
            what = (files.forge if draw.random() < 0.4 else files.damage)(draw)
            log.write(f"{what}\t")
            log.flush()
            same = files.are_whole()
            result = translate(files.path)
            problem = fault(files, what, same, result, whole) or "ok"
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before
            if problem == "ok" and grown > MEMORY:
                problem, before = f"{grown >> 20} MB more", before + grown
            log.write(f"{result[0]}\t{problem}\t{result[2]!r}")
        files.restore()
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in order.folder.iterdir()}, names


def fuzz(kind, seed, count, models, server, tmp_path) -> list[list[str]]:
    """Run all cases of a kind; the fields of the line of each."""
    found = []
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        results = tmp_path / f"{kind}-{start}.results"
        order = Order(kind, seed, numbers, models, results)
        process = server.Process(target=run_batch, args=(order,))
        process.start()
        process.join(600)
        lines = results.read_text(encoding="utf-8").split("\n")[1:]
        if process.is_alive():
            process.kill()
        assert process.exitcode == 0, f"{process.exitcode} at {lines[-1]}"
        found += [line.split("\t") for line in lines]
    assert len(found) == count
    return found


def check(kind, seed, count, models, server, tmp_path) -> str:
    """Run all cases, which end as promised; a line about them."""
    found = fuzz(kind, seed, count, models, server, tmp_path)
    refused = sum(case[2] != "0" for case in found)
    assert [case for case in found if case[3] != "ok"] == []
    assert refused > count // 3
    return f"{kind}: {count} damaged or forged, {refused} refused, the others as before"


@pytest.mark.parametrize("kind", CASES)
def test_a_fuzzed_model_translates_as_before_or_is_refused(kind, models, process_server, tmp_path):
    check(kind, 1, CASES[kind], models, process_server, tmp_path)


@pytest.mark.torture
@pytest.mark.parametrize("kind", MANY)
def test_many_fuzzed_models_translate_as_before_or_are_refused(
    kind, seed, figure, models, process_server, tmp_path
):
    figure(check(kind, seed, MANY[kind], models, process_server, tmp_path))
