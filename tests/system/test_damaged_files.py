"""A damaged file of a model is one line with its name, whatever the damage: no trace, no hang.

Each file of a run and of a CTranslate2 folder is damaged in each way. The command then translates
as before (the damage does not matter), or ends with exit code 4 or 5.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
from pathlib import Path

import damages
import numpy as np
import pytest
import typer

from mt.checkpoints import run_directory
from mt.decoding.shortlist import Shortlist, save_shortlist
from mt.errors import ModelError
from mt.export import export

GOLDEN = Path(__file__).parents[1] / "golden"
STEP = "checkpoints/step-00000600"
LINES = "A boy eats an apple.\n"

RUN_FILES = [
    "resolved.json", "report.json", "vocabulary.json", "vocabulary.model", "best",
    "shortlist.safetensors", f"{STEP}/state.json", f"{STEP}/MANIFEST.json",
    f"{STEP}/model.safetensors",
]  # fmt: skip
FOLDER_FILES = [
    "mt.json", "config.json", "shared_vocabulary.json", "vocabulary.json", "vocabulary.model",
    "model.bin",
]  # fmt: skip
ABSENT = ("nothing", "a dangling link", "a link to itself")
HAND_EDITED = ["config.yaml"]
"""Without checksums, since their owner may change them: another value is another translation."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a run, its export, and a text."""
    here = tmp_path_factory.mktemp("models")
    run = shutil.copytree(GOLDEN / "transformer", here / "run", symlinks=True)
    (run / "best").unlink()
    run_directory.mark_best(run, run / STEP)
    settings = run_directory.read_recipe(run).model_dump(mode="json", exclude_defaults=True)
    (run / "config.yaml").write_text(json.dumps(settings), encoding="utf-8")  # read faster
    vocabulary = run_directory.open_run(run).vocabulary
    pieces = np.zeros((vocabulary.source_size, 1), np.int32)
    every = Shortlist(pieces, np.arange(vocabulary.size, dtype=np.int32), vocabulary.size)
    save_shortlist(every, run, vocabulary.digest)
    export.export_model(run, "ctranslate2", here / "folder")
    (here / "text").write_text(LINES, encoding="utf-8")
    return here


def numbers(value, path=()):
    """The places of the numbers in a JSON value."""
    if isinstance(value, bool):
        return []
    if isinstance(value, (int, float)):
        return [path]
    inside = value.items() if isinstance(value, dict) else enumerate(value) if value else ()
    return [] if isinstance(value, str) else [
        place for key, each in inside for place in numbers(each, (*path, key))
    ]  # fmt: skip


def with_values(data: bytes, new, draw):
    """JSON with one of its numbers replaced by `new`, for some of them."""
    places = numbers(json.loads(data))
    for place in draw.sample(places, min(2, len(places))):
        changed = json.loads(data)
        around = changed
        for key in place[:-1]:
            around = around[key]
        around[place[-1]] = new
        yield place, json.dumps(changed).encode()


def damaged_contents(name: str, data: bytes):
    """(what was done, the new contents) of each damage that leaves a file."""
    draw = random.Random(name)
    for _ in range(3):
        place, flipped = draw.randrange(len(data)), bytearray(data)
        flipped[place] ^= 1 << draw.randrange(8)
        yield f"bit {place}", bytes(flipped)
    yield "half", data[: len(data) // 2]
    yield "empty", b""
    yield "deep", b"[" * 100_000
    yield "a list", b"[1]"
    yield "a deep value", b'{"format": 1, "x": ' + b"[" * 500 + b"]" * 500 + b"}"
    if name.endswith(".json") and isinstance(json.loads(data), dict):
        for new in (float("nan"), "7"):
            for place, changed in with_values(data, new, draw):
                yield f"{new} at {place}", changed
        for key in draw.sample(sorted(json.loads(data)), 2):
            yield f"null at {key}", json.dumps({**json.loads(data), key: None}).encode()


def damages_of(path: Path, name: str):
    """(what was done, what does it to the absent file) of each damage."""
    for what, content in damaged_contents(name, path.read_bytes()):
        yield what, lambda content=content: path.write_bytes(content)
    for what, make in damages.instead_of_files().items():
        yield what, lambda make=make: make(path)


@pytest.fixture(autouse=True)
def _one_command_line(monkeypatch):
    """The command line is built once, which takes longer than reading a file."""
    monkeypatch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))


def run_command(arguments: list[str]):
    """The exit code and the streams of a command, which is interrupted when it hangs."""
    with damages.without_power_over_files():
        return damages.run_captured(arguments)


def outcomes(path: Path, name: str, arguments: list[str]):
    """(damage, exit code, streams) of a command for each damage of the file `name`."""
    file = path / name
    kept = file.with_name(".kept")
    for what, damage in list(damages_of(file, name)):
        file.rename(kept)
        try:
            damage()
            yield what, *run_command(arguments)
        finally:
            shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
            kept.rename(file)


def translate(models, folder):
    shortlist = ["--set", "search.shortlist=true"] if folder == "run" else []
    common = ["-i", str(models / "text"), "--threads", "1", "--device", "cpu"]
    return ["translate", str(models / folder), *common, *shortlist]


@pytest.mark.parametrize(
    ("folder", "name"),
    [*(("run", name) for name in RUN_FILES), *(("folder", name) for name in FOLDER_FILES)],
)
def test_translating_is_as_before_or_names_the_file(folder, name, models):
    arguments = translate(models, folder)
    code, whole, err = run_command(arguments)
    assert (code, whole.count("\n"), err) == (0, 1, "")
    refused = 0
    for what, code, out, err in outcomes(models / folder, name, arguments):
        none = name == "shortlist.safetensors" and what in ABSENT  # the option is wrong then
        assert code in (0, 4, 5, 2 * none), (what, code, err)
        if code == 0:
            assert out == whole, what
            continue
        refused += 1
        assert err.startswith("mt: error["), (what, err)
        assert Path(name).name in err or str(models / folder) in err, (what, err)
        assert len(err.splitlines()) == 2, (what, err)
    assert refused > 3


@pytest.mark.parametrize("name", HAND_EDITED)
def test_a_damaged_recipe_is_no_fault_of_mt(name, models):
    for what, code, _, err in outcomes(models / "run", name, translate(models, "run")):
        assert code in (0, 4, 5), (what, code, err)


def test_a_log_is_read_but_for_lines_cut_short(models):
    """An export writes the scores of the validation, which `metrics.jsonl` has."""
    opened = run_directory.open_run(models / "run")
    log = models / "run" / "metrics.jsonl"
    line, before = json.loads(log.read_text(encoding="utf-8").splitlines()[-1]), log.read_bytes()
    scores = export.validation_scores(opened)
    assert scores["validation"]["BLEU"]["score"] == round(line["valid_bleu"], 2)
    not_a_number = json.dumps({**line, "valid_bleu": float("nan")}).encode()
    for content in (b'{"step": 600, "valid_bl', b"[" * 100_000, not_a_number, b"\xff"):
        log.write_bytes(before + content)
        assert export.validation_scores(opened) == scores
    for content in (json.dumps({**line, "valid_bleu": "7"}).encode(), b"[1]\n"):
        log.write_bytes(before + content)
        with pytest.raises(ModelError, match=r"metrics\.jsonl:5: damaged"):
            export.validation_scores(opened)
    log.unlink()
    os.mkfifo(log)
    with pytest.raises(ModelError, match=r"metrics\.jsonl: not a regular file"):
        export.validation_scores(opened)
    log.unlink()
    log.write_bytes(before)


def test_a_best_that_names_nothing_is_not_another_checkpoint(models):
    """It does not fall back to the last checkpoint, which may translate worse."""
    best = models / "run" / "best"
    kept = best.read_text(encoding="utf-8")
    best.write_text("checkpoints/step-00000601\n", encoding="utf-8")
    code, _, err = run_command(translate(models, "run"))
    chosen = run_command([*translate(models, "run"), "--checkpoint", "last"])
    best.write_text(kept, encoding="utf-8")
    assert (code, str(best) in err) == (4, True)
    assert chosen[0] == 0
