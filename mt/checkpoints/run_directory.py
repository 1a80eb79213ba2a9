"""The run directory: open it, choose a checkpoint, delete old ones."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import yaml
from pydantic import Field

from mt.checkpoints import checkpoint
from mt.checkpoints.train_state import TrainState
from mt.config.plugins import plugin
from mt.config.recipe import Recipe, dump
from mt.config.section import map_input_files
from mt.errors import ModelError
from mt.runtime import files, model_files
from mt.runtime.model_files import JsonObject
from mt.vocabulary.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import nn


BEST = "best"
"""The file in a run directory that names its best checkpoint, `checkpoints/step-...`."""
WRITTEN_IN = "# written in "
"""Begins the first line of config.yaml, which names the folder of the run."""
AVERAGE = "average"
"""The folder name of the average of the last checkpoints."""
_RESTORE = "a run directory holds config.yaml, resolved.json and a vocabulary; restore it"


class Resolved(JsonObject):
    """`resolved.json`: what autotuning chose."""

    device: str = ""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    micro_tokens: Annotated[int, Field(ge=1)] = 1
    shapes: list[Annotated[list[int], Field(min_length=3, max_length=3)]] = Field(
        default_factory=list
    )
    compile: bool = False
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    processes: Annotated[int, Field(ge=1)] = 1
    sharding: str = "none"
    torch: str = ""


class _InputFile(JsonObject):
    """A file that a corpus was read from."""

    path: str = ""
    sha256: str = ""


class _CorpusFacts(JsonObject):
    """What the report says of a corpus."""

    files: dict[str, _InputFile] | None = None
    pairs: int | None = None


class Report(JsonObject):
    """`report.json` of the prepared data."""

    corpora: dict[str, _CorpusFacts] | None = None
    held_out: dict[str, _CorpusFacts] | None = None
    usual_lengths: dict[str, Annotated[int, Field(ge=0)]] | None = None
    """`mt.data.sentences.UsualLengths`."""


def delete_old_checkpoints(
    run: Path, keep_last: int, planned: Callable[[TrainState], bool]
) -> None:
    """Delete all but the best and the last `keep_last` of the planned ones and the newest."""
    best, folders = best_checkpoint(run), step_folders(run)
    kept = [f for f in folders if f == folders[-1] or _is_planned(f, planned)][-keep_last:]
    for folder in folders:
        if folder not in kept and folder != best:
            files.delete(folder)


def _is_planned(folder: Path, planned: Callable[[TrainState], bool]) -> bool:
    try:
        return planned(checkpoint.read_state(folder))
    except ModelError:
        return True  # a damaged one is deleted when it is old


def step_folders(run: Path) -> list[Path]:
    """Return the checkpoint folders by the number of their step."""
    return sorted((run / "checkpoints").glob("step-*"))


def restore_replaced(run: Path) -> None:
    """Put a sound checkpoint back that a killed process had moved aside to write it again."""
    for trash in (run / "checkpoints").glob(".trash-step-*"):
        final = trash.with_name(trash.name.removeprefix(".trash-").rpartition("-")[0])
        if not final.exists() and checkpoint.integrity_error(trash) is None:
            files.rename_path(trash, final)


def latest_sound_checkpoint(run: Path, log: Callable[[str], None]) -> Path | None:
    """Return the newest sound checkpoint; rename newer damaged ones, with a warning.

    Raises:
        ModelError: there are checkpoints and none is sound; nothing is changed.
    """
    faults: list[tuple[Path, str]] = []
    for folder in reversed(step_folders(run)):
        why = checkpoint.integrity_error(folder)
        if why is None:
            for bad, reason in faults:
                log(f"mt: warning[CKPT-SKIP] {bad.name}: {reason}; set aside")
                files.rename_path(bad, bad.parent / f".bad-{bad.name}")
            return folder
        faults.append((folder, why))
    if faults:
        (folder, why), *others = faults
        advice = "restore one from a copy, or start over with --fresh"
        raise ModelError("CKPT-NONE", folder, why, advice, others)
    return None


@dataclass(frozen=True)
class LoadedModel:
    """A run or a bundle, opened at one checkpoint."""

    run: Path
    folder: Path
    recipe: Recipe
    vocabulary: Vocabulary
    state: TrainState
    resolved: dict[str, Any]
    """`resolved.json`: what autotuning chose."""
    report: dict[str, Any] = field(default_factory=dict)
    """`report.json` of the prepared data."""
    scores: dict[str, Any] = field(default_factory=dict)
    """Scores of the test sets, as far as a bundle has them."""
    serialised: bytes | None = None
    """The weights of a bundle, as safetensors."""

    @property
    def step(self) -> int:
        """The step of the checkpoint."""
        return self.state.step

    def model(self) -> nn.Module:
        """Build the model with the weights to translate with; a ModelError when they do not fit."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        model, data = self.build(), self.serialised
        try:
            weights = checkpoint.load_weights(self.folder) if data is None else load(data)
        except SafetensorError as error:
            advice = "restore the file from a copy"
            raise ModelError(
                "CKPT-DAMAGED", self.folder, f"{checkpoint.MODEL}: {error}", advice
            ) from None
        checkpoint.load_into(model, weights, self.folder)
        return model

    def build(self) -> nn.Module:
        """Build the model without its weights; a ModelError when those have other sizes."""
        from mt.checkpoints.tensor_shapes import build_checked, read_shapes

        config, data = self.recipe.model, self.serialised
        try:
            given = read_shapes(self.folder / checkpoint.MODEL if data is None else data)
        except (OSError, ValueError) as error:
            what, advice = f"{checkpoint.MODEL}: {error}", "restore the file from a copy"
            raise ModelError("CKPT-DAMAGED", self.folder, what, advice) from None
        module = plugin("models", config.kind)
        own = "." in config.kind
        return build_checked(lambda: module.build(config, self.vocabulary), given, self.folder, own)


def locate(path: Path) -> tuple[Path, Path | None] | None:
    """Return the run of a path, and the checkpoint if the path is of one; None: neither.

    What lies there decides, not how the path is spelled: a checkpoint is a folder in
    `checkpoints/` of a run, RUN/best, or a link to one of these.
    """
    if (path / "checkpoints").is_dir():
        return path, None
    real = Path(os.path.realpath(path))
    if real.name == BEST and (real.parent / "checkpoints").is_dir():
        folder = real if real.is_dir() else best_checkpoint(real.parent)
        return (real.parent, folder) if folder else None
    if real.is_dir() and real.parent.name == "checkpoints":
        return real.parent.parent, real
    return None


def is_run(path: Path) -> bool:
    """Whether a run directory or one of its checkpoints lies at `path`."""
    return locate(path) is not None


def open_run(path: Path, choice: str | None = None) -> LoadedModel:
    """Open a run directory or one checkpoint folder in it.

    `choice` is `best`, `last`, `average` or `step-N`; by default the best, else the last.

    Raises:
        ModelError: not a run, no such checkpoint, or a damaged one.
    """
    advice = "give a run directory, such as runs/demo, or a checkpoint folder in it"
    found = locate(path)
    if found is None:
        what = "not a run (no checkpoints in it)" if path.exists() else "no such run"
        raise ModelError("RUN-NONE", path, what, advice)
    run, folder = found[0], found[1] or choose_checkpoint(found[0], choice)
    try:
        return _open_checkpoint(run, folder)
    except (ModelError, FileNotFoundError):
        if folder.exists():
            raise
    return open_run(path, choice)  # a training has deleted it and has another


def _open_checkpoint(run: Path, folder: Path) -> LoadedModel:
    why = checkpoint.integrity_error(folder, training=False)
    if why:
        advice = "choose another with --checkpoint, or restore the files from a copy"
        raise ModelError("CKPT-HASH", folder, why, advice)
    recipe, vocabulary = read_recipe(run), Vocabulary.load(run)
    expected = model_files.read_json(folder / checkpoint.MANIFEST).get("vocabulary")
    if expected not in (None, vocabulary.digest):
        what = f"its vocabulary is {vocabulary.digest[:16]}, {folder.name} was trained with "
        advice = "restore the vocabulary of this run from a copy"
        raise ModelError("VOCAB-MISMATCH", run, f"{what}{str(expected)[:16]}", advice)
    return LoadedModel(
        run, folder, recipe, vocabulary, checkpoint.read_state(folder),
        resolved=model_files.read_json(run / "resolved.json", Resolved, advice=_RESTORE),
        report=read_report(run),
    )  # fmt: skip


def read_report(run: Path) -> dict[str, Any]:
    """Read `report.json` of a run; a run may have none."""
    path = run / "report.json"
    return model_files.read_json(path, Report) if path.exists() else {}


def choose_checkpoint(run: Path, choice: str | None) -> Path:
    """Return the folder of a checkpoint; by default of the best, else of the last."""
    folder, steps = run / "checkpoints", step_folders(run)
    names = [step.name for step in steps]
    if choice in (None, "best"):
        best = best_checkpoint(run) or best_checkpoint(run)  # a training may just change it
        if best:
            return best
        if os.path.lexists(run / BEST) and steps:
            advice = "choose one with --checkpoint last or step-N, or restore the file"
            raise ModelError("RUN-DAMAGED", run / BEST, "names no checkpoint of this run", advice)
    if choice in (None, "last") and steps:
        return steps[-1]
    if choice == AVERAGE and (folder / AVERAGE).is_dir():
        return folder / AVERAGE
    if choice and choice.startswith("step-") and choice[5:].isdigit():
        name = checkpoint.checkpoint_name(int(choice[5:]))
        if name in names:
            return folder / name
    what = f"no checkpoint {choice or 'last'}; there are: {', '.join(names) or 'none'}"
    advice = "choose one with --checkpoint best|last|average|step-N, or train first"
    raise ModelError("CKPT-NONE", run, what, advice)


def read_recipe(run: Path) -> Recipe:
    """Read the recipe that a run was begun or last resumed with; see `follow_move`."""
    path = run / "config.yaml"
    text = model_files.read_text(path, advice=_RESTORE)
    return follow_move(checkpoint.parse_recipe(text, str(path), run), path)


def follow_move(recipe: Recipe, path: Path) -> Recipe:
    """Return the recipe of the file `path` with the present paths of its input files.

    The config.yaml of a run names the folder in which it was written. Where the run has been
    moved, a file that is missing may have been moved with it: it is then where it was, as seen
    from the run.
    """
    with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as stream:
        match = re.match(rf"{WRITTEN_IN}(\".*\")$", stream.readline().rstrip("\n"))
        if match is not None:
            before, now = json.loads(match[1]), os.path.realpath(path.parent)
            if before != now:
                return cast(Recipe, map_input_files(recipe, partial(_moved_path, before, now)))
    return recipe


def _moved_path(before: str, now: str, path: str) -> str:
    moved = os.path.normpath(os.path.join(now, os.path.relpath(path, before)))
    return path if os.access(path, os.F_OK) or not os.access(moved, os.F_OK) else moved


def create_run(run: Path, recipe: Recipe, vocabulary: Vocabulary, resolved: dict[str, Any]) -> None:
    """Write recipe, vocabulary and `resolved.json` of a new run."""
    files.make_folder(run / "checkpoints")
    vocabulary.save(run)
    files.write_json(run / "resolved.json", resolved)
    write_recipe(run, recipe)


def write_recipe(run: Path, recipe: Recipe) -> None:
    """Write the recipe of a run; a resume may have changed some keys."""
    line = WRITTEN_IN + json.dumps(os.path.realpath(run))
    files.write_file(run / "config.yaml", f"{line}\n{recipe_text(recipe)}")


def recipe_text(recipe: Recipe) -> str:
    """Format a recipe as YAML, every default filled in."""
    text = yaml.safe_dump(dump(recipe), allow_unicode=True, sort_keys=False)
    return "# the resolved recipe of this run\n" + text


def average_criteria(run: Path, state: TrainState) -> dict[str, float | None] | None:
    """Return what checkpoints/average was worth, if it is sound and of this step of the run."""
    folder = run / "checkpoints" / AVERAGE
    if not folder.is_dir() or checkpoint.integrity_error(folder) is not None:
        return None
    average = checkpoint.read_state(folder)
    current = average.step == state.step and average.best_step is None
    return average.best_criteria if current else None


def mark_best(run: Path, folder: Path) -> None:
    """Name a checkpoint in RUN/best."""
    path = run / BEST
    if path.is_dir() and not path.is_symlink():  # a copied link of an earlier version
        files.delete(path)
    files.write_file(path, f"checkpoints/{folder.name}\n")


def best_checkpoint(run: Path) -> Path | None:
    """Return the checkpoint folder that RUN/best names; None when it names none.

    Earlier versions made a link of it; `cp -rL` makes a folder of that.
    """
    path = run / BEST
    try:
        if path.is_symlink():
            name = path.readlink().name
        elif path.is_dir():
            name = checkpoint.checkpoint_name(checkpoint.read_state(path).step)
        else:
            name = Path(model_files.read_text(path).strip()).name
    except (ModelError, OSError):
        return None
    folder = run / "checkpoints" / name
    return folder if checkpoint.FILE_NAME.fullmatch(name) and folder.is_dir() else None


def differing_keys(
    old: dict[str, Any], new: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield each key whose value differs: (key, old, new)."""
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from differing_keys(a, b, f"{prefix}{key}.")
        elif a != b:
            yield f"{prefix}{key}", a, b


def run_of(path: Path) -> Path:
    """Return the run directory of a run, or of a checkpoint folder in one."""
    found = locate(path)
    return path if found is None else found[0]
