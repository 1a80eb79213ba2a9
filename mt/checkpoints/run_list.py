"""List runs with their scores, and name what differs between two of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mt.checkpoints import checkpoint, run_directory
from mt.checkpoints.run_directory import LoadedModel
from mt.config.recipe import dump
from mt.errors import ModelError, MtError, printable

MAX_DEPTH = 3
"""Folders below the one that is named in which runs are looked for."""


@dataclass(frozen=True)
class RunFacts:
    """A run in a list."""

    name: str
    direction: str
    """Languages, such as `en-de`."""
    step: int
    """Of its newest checkpoint."""
    epochs: int
    hours: float
    best: str
    """The best validation, such as `bleu 31.20 at 4,000`; empty before the first."""
    status: str
    """`finished` or `unfinished`, or why it cannot be read."""


def list_runs(folder: Path) -> list[RunFacts]:
    """Return the runs in a folder by their names.

    Raises:
        ModelError: there is none.
    """
    facts = [_facts(run, folder) for run in sorted(_find_runs(folder, MAX_DEPTH))]
    if not facts:
        raise ModelError("RUN-NONE", folder, "there are no runs in it", "give another folder")
    return facts


def _find_runs(folder: Path, depth: int) -> Iterator[Path]:
    if run_directory.is_run(folder):
        yield folder
    elif depth and folder.is_dir():
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
                yield from _find_runs(path, depth - 1)


def _facts(run: Path, folder: Path) -> RunFacts:
    name = printable(run.name if run == folder else run.relative_to(folder))
    if not run_directory.step_folders(run):
        return RunFacts(name, "", 0, 0, 0.0, "", "no checkpoint yet")
    try:
        recipe = run_directory.read_recipe(run)
        state = checkpoint.read_state(run_directory.choose_checkpoint(run, "last"))
    except MtError as error:
        where, what = error.problems[0]
        return RunFacts(name, "", 0, 0, 0.0, "", f"{printable(Path(str(where)).name)}: {what}")
    criteria = (state.best_criteria or {}).items()
    best = next((f"{key} {abs(value):.2f}" for key, value in criteria if value is not None), "")
    best += f" at {state.best_step:,}" if best and state.best_step is not None else ""
    direction = f"{recipe.direction.source}-{recipe.direction.target}"
    status = "finished" if state.finished else "unfinished"
    return RunFacts(
        name, direction, state.step, state.epoch, state.seconds / 3600, best, status
    )  # fmt: skip


def format_runs(facts: list[RunFacts]) -> list[list[str]]:
    """Return the rows of a table of runs, its head first."""
    rows = [["run", "pair", "updates", "epochs", "hours", "best validation", "status"]]
    for one in facts:
        counts = [f"{one.step:,}", str(one.epochs), f"{one.hours:.2f}"]
        rows.append([one.name, one.direction, *counts, one.best, one.status])
    return rows


def compare_runs(first: LoadedModel, second: LoadedModel) -> Iterator[str]:
    """Yield a line for each key of the recipes, and each file of data, that differs."""
    recipes = dump(first.recipe), dump(second.recipe)
    for key, a, b in run_directory.differing_keys(*recipes):
        yield f"{key}: {printable(_short(a))} -> {printable(_short(b))}"
    for label, a, b in _differing_files(first.report, second.report):
        yield f"{label}: sha256 {a} -> {b}"
    if first.vocabulary.digest != second.vocabulary.digest:
        yield f"vocabulary: {first.vocabulary.digest[:16]} -> {second.vocabulary.digest[:16]}"


def _differing_files(one: dict[str, Any], other: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield each input file whose content differs: its corpus and side, and both hashes."""
    for section in ("corpora", "held_out"):
        a, b = dict(one.get(section) or {}), dict(other.get(section) or {})
        for name in sorted(a.keys() & b.keys()):
            old, new = (dict(each[name].get("files") or {}) for each in (a, b))
            for side in sorted(old.keys() & new.keys()):
                hashes = [str(each[side].get("sha256", ""))[:16] for each in (old, new)]
                if hashes[0] != hashes[1]:
                    yield f"{name}, {side}", hashes[0], hashes[1]


def _short(value: Any) -> str:
    return "left out" if value is None else str(value)
