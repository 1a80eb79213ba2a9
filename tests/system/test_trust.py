"""The recipe of a model imports no module, unless its user says so.

A run may come from a stranger. Its recipe may name a module by a dotted kind, and importing a
module runs it. Only a recipe or an option of the command line, or --trust, lets that happen.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import sys
from pathlib import Path

import pytest
import tiny_run
import typer
import yaml

from mt.checkpoints import bundle
from mt.checkpoints.run_directory import open_run
from mt.cli import main
from mt.config import plugins

GOLDEN = Path(__file__).parents[1] / "golden"

NEEDED = {
    "model": ("model", "mt.models.transformer"),
    "search": ("search", "mt.decoding.search.beam"),
}
"""Sections without which nothing can be translated, and what the module copies."""
FOR_TRAINING = {
    "objective": ("objective", "mt.training.objectives.cross_entropy"),
    "optimizer": ("optimizer", "mt.training.optimizers.adamw"),
    "training corpus": ("data.train.0", "mt.data.sources.demo"),
    "validation corpus": ("data.valid", "mt.data.sources.demo"),
    "test set": ("data.test.test", "mt.data.sources.demo"),
}
SECTIONS = NEEDED | FOR_TRAINING
MODULE = """\
from pathlib import Path
import sys
Path(__file__).with_name("imported").touch()
from {original} import *
from {original} import Config as Original
class Config(Original):
    kind: str = "{name}"
"""
COMMANDS = {
    "translate": "translate RUN -i TEXT",
    "score": "score RUN --source TEXT --target TEXT",
    "eval": "eval RUN",
    "attention": "attention RUN --source x --terminal",
    "export to a bundle": "export RUN --to bundle -o OUT.mt",
    "export to CTranslate2": "export RUN --to ctranslate2 -o OUT",
    "average": "average RUN step-600 step-600",
    "shortlist": "shortlist RUN",
    "prune": "prune RUN --heads 50% -o OUT",
    "distill": "distill RUN OWN --run OUT --no-train",
    "distill words": "distill RUN OWN --run OUT --level word --no-train",
    "backtranslate": "backtranslate RUN TEXT -o OUT --processes 1",
    "initialise": "train OWN --set training.initialise_from=RUN --run OUT",
    "learn from a teacher": "train OWN --set objective.kind=distillation"
    " --set objective.teacher=RUN --set vocabulary.path=RUN --run OUT",
    "prepare": "prepare OWN --set training.initialise_from=RUN",
}


@pytest.fixture(autouse=True)
def _own_process(monkeypatch, tmp_path):
    """As in a process of its own: nothing is trusted yet; the command line is built once."""
    monkeypatch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
    monkeypatch.setattr(plugins, "_named", set())
    monkeypatch.setattr(plugins, "_refused", {})
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "stranger"]:
        del sys.modules[name]


def stranger(folder: Path, *sections: str) -> Path:
    """A run whose recipe names a module of a package `stranger` in these sections."""
    run = shutil.copytree(GOLDEN / "transformer", folder / "run", symlinks=True)
    settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    (folder / "own.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    (folder / "text").write_text("A boy eats an apple.\n", encoding="utf-8")
    (folder / "stranger").mkdir()
    for section in sections:
        place, original = SECTIONS[section]
        name = f"stranger.{section.replace(' ', '_')}"
        code = MODULE.format(original=original, name=name)
        (folder / f"{name.replace('.', '/')}.py").write_text(code, encoding="utf-8")
        value = settings
        for key in place.split("."):
            value = value[int(key) if key.isdigit() else key]
        value["kind"] = name
    (run / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return run


def was_imported(folder: Path) -> bool:
    return (folder / "stranger" / "imported").exists()


def arguments(line: str, folder: Path, run: Path | None = None) -> list[str]:
    names = {"RUN": run or folder / "run", "TEXT": folder / "text", "OUT": folder / "out"}
    names["OWN"] = folder / "own.yaml"
    for name, path in names.items():
        line = line.replace(name, str(path))
    return line.split()


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_imports_what_a_model_names(command, tmp_path, capsys):
    run = stranger(tmp_path, "search")
    code = main.run(arguments(COMMANDS[command], tmp_path))
    err = capsys.readouterr().err
    assert not was_imported(tmp_path)
    assert code == 4
    assert f"error[MODEL-TRUST] {run}/config.yaml: its recipe names the module stranger" in err
    assert "--trust" in err


def as_bundle(run: Path) -> Path:
    """The run in one file."""
    with plugins.trust_models():
        opened = open_run(run)
        bundle.write_bundle(run.with_name("model.mt"), opened, opened.model())
    for name in [name for name in sys.modules if name.startswith("stranger")]:
        del sys.modules[name]
    plugins._named.clear()
    (run.parent / "stranger" / "imported").unlink()
    return run.with_name("model.mt")


@pytest.mark.parametrize("section", NEEDED)
@pytest.mark.parametrize("form", ["run", "bundle"])
def test_what_translating_needs_is_imported_with_trust_only(section, form, tmp_path, capsys):
    run = stranger(tmp_path, section)
    model = as_bundle(run) if form == "bundle" else run
    line = arguments(f"{COMMANDS['translate']} --device cpu --threads 1", tmp_path, model)
    capsys.readouterr()
    assert main.run(line) == 4
    assert not was_imported(tmp_path)
    assert f"error[MODEL-TRUST] {model}/" in capsys.readouterr().err
    assert main.run([*line, "--trust"]) == 0
    assert was_imported(tmp_path)
    assert capsys.readouterr().out.count("\n") == 1


def test_an_exported_folder_imports_nothing_either(tmp_path, capsys):
    stranger(tmp_path, "search")
    folder = tmp_path / "folder"
    line = ["export", str(GOLDEN / "transformer"), "--to", "ctranslate2", "-o", str(folder)]
    assert main.run([*line, "--sample", str(tmp_path / "text")]) == 0
    about = json.loads((folder / "mt.json").read_text(encoding="utf-8"))
    about["search"]["kind"] = "stranger.search"
    del about["digest"]
    (folder / "mt.json").write_text(json.dumps(about), encoding="utf-8")
    capsys.readouterr()
    assert main.run(arguments(COMMANDS["translate"], tmp_path, folder)) == 4
    assert f"error[MODEL-TRUST] {folder}/mt.json: " in capsys.readouterr().err
    assert not was_imported(tmp_path)


def test_trust_ends_with_the_command(tmp_path, capsys):
    stranger(tmp_path, "search")
    own = arguments("translate OWN -i TEXT --trust", tmp_path)
    assert main.run(own) == 4  # no run
    assert not plugins.models_are_trusted()
    assert main.run(arguments(COMMANDS["translate"], tmp_path)) == 4
    assert not was_imported(tmp_path)


def test_translating_does_without_what_only_training_needs(tmp_path, capsys):
    """Neither --trust nor the modules are needed, which may not even be there."""
    run = stranger(tmp_path, *FOR_TRAINING)
    assert main.run(arguments(COMMANDS["translate"], tmp_path)) == 0, capsys.readouterr().err
    opened, made = open_run(run), tmp_path / "model.mt"
    bundle.write_bundle(made, opened, opened.model())
    assert main.run(arguments("translate RUN -i TEXT", tmp_path, made)) == 0
    kept = bundle.open_loaded_model(made).recipe
    assert kept == open_run(run).recipe
    assert (kept.objective.kind, kept.optimizer.kind) == (
        "stranger.objective",
        "stranger.optimizer",
    )
    assert kept.data.train[0].direction.target == "de"
    capsys.readouterr()
    for command in ("eval", "prune"):
        assert main.run(arguments(COMMANDS[command], tmp_path)) == 4
        assert f"error[MODEL-TRUST] {run}/config.yaml: " in capsys.readouterr().err
    assert not was_imported(tmp_path)


def test_a_recipe_of_the_command_line_names_what_it_wants(tmp_path, capsys):
    run = stranger(tmp_path, "search", "objective")
    assert main.run(["config", str(run / "config.yaml")]) == 0
    assert was_imported(tmp_path)
    assert main.run(arguments(COMMANDS["translate"], tmp_path)) == 0  # it has been named


def test_an_option_names_what_it_wants(tmp_path, capsys):
    stranger(tmp_path, "search")
    shutil.rmtree(tmp_path / "run")
    shutil.copytree(GOLDEN / "transformer", tmp_path / "run", symlinks=True)
    line = f"{COMMANDS['translate']} --set search.kind=stranger.search"
    assert main.run(arguments(line, tmp_path)) == 0, capsys.readouterr().err
    assert was_imported(tmp_path)


def test_processes_trust_what_their_parent_does(tmp_path, capsys):
    stranger(tmp_path, "search")
    line = arguments(f"{COMMANDS['translate']} --processes 2 --trust", tmp_path)
    assert main.run(line) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.count("\n") == 1


# ---------------------------------------------------------------------------- other files, network

READS_ONLY_THE_MODEL = ("translate", "score", "attention", "export to a bundle")
OPENED: list[tuple[str, str]] = []
"""The path and mode of each file that Python opened while it is listed."""


@pytest.fixture
def opened_files():
    """The files that are opened in a test; a hook of Python cannot be taken away again."""
    if not hasattr(sys, "mt_lists_files"):
        sys.mt_lists_files = False
        sys.addaudithook(list_opened)
    OPENED.clear()
    sys.mt_lists_files = True
    yield OPENED
    sys.mt_lists_files = False


def list_opened(event, arguments):
    if event == "open" and sys.mt_lists_files and isinstance(arguments[0], (str, bytes)):
        OPENED.append((os.path.realpath(os.fsdecode(arguments[0])), str(arguments[1])))


@pytest.mark.parametrize("command", READS_ONLY_THE_MODEL)
def test_a_model_names_no_file_to_read_or_write(command, tmp_path, opened_files, capsys):
    """Its recipe names files of its training; only `mt eval`, which tests on them, reads some."""
    run = stranger(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("secret\n", encoding="utf-8")
    recipe = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    text = {"kind": "text", "source": str(secret), "target": str(secret)}
    recipe["data"] |= {"train": [text], "valid": text, "test": {"../../x": text}}
    recipe["vocabulary"]["path"] = recipe["training"]["initialise_from"] = str(secret)
    (run / "config.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    opened_files.clear()
    line = arguments(COMMANDS[command], tmp_path)
    line += ["--sample", str(tmp_path / "text")] if command.startswith("export") else []
    assert main.run(line) == 0, capsys.readouterr().err
    read = {path for path, _ in opened_files}
    assert str(run / "config.yaml") in read
    assert str(secret) not in read
    written = {path for path, mode in opened_files if set(mode) & set("wax+")}
    named = (str(tmp_path / "out"), str(tmp_path / ".tmp-out"), os.devnull)
    assert [path for path in written if not path.startswith(named)] == []


@pytest.fixture
def connections(monkeypatch):
    """What was to be connected to; each attempt is refused."""
    attempts = []

    def refuse(*arguments, **more):
        attempts.append(arguments)
        raise OSError("no network here")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return attempts


def test_only_a_named_source_connects(tmp_path, connections, monkeypatch, capsys):
    tiny_run.make(tmp_path)
    rows = zip(tiny_run.SOURCES, tiny_run.TARGETS, strict=True)
    lines = "".join(json.dumps({"en": a, "de": b}) + "\n" for a, b in rows)
    (tmp_path / "rows.jsonl").write_text(lines, encoding="utf-8")
    text = tiny_run.RECIPE.replace("KIND", "sentencepiece")
    text = text.replace("  train: [{", "  train: [{kind: huggingface, files: [rows.jsonl]}, {")
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "text").write_text("A boy eats an apple.\n", encoding="utf-8")
    sets = [
        "data.processes=1",
        "data.drop_overlap=false",
        "training.max_steps=2",
        "schedule.warmup_steps=1",
    ]
    sets += ["training.save_every=2", "training.validate_every=2", "runtime.compile=false"]
    options = [word for each in [*sets, "runtime.threads=1"] for word in ("--set", each)]
    train = ["train", str(tmp_path / "own.yaml"), "--run", str(tmp_path / "new"), *options]
    assert main.run(train) == 0, capsys.readouterr().err
    for command in ("translate", "eval", "export to CTranslate2", "attention"):
        line = arguments(COMMANDS[command], tmp_path, tmp_path / "new")
        assert main.run(line) == 0, capsys.readouterr().err
    assert connections == []
