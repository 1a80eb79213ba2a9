"""The run directory: layout, opening, pruning of checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mt.checkpoints.checkpoint import (
    MODEL,
    checkpoint_name,
    integrity_error,
    load_into,
    load_weights,
    parse_recipe,
    read_state,
)
from mt.checkpoints.train_state import TrainState
from mt.config import recipe
from mt.config.plugins import plugin
from mt.config.recipe import Recipe
from mt.errors import ModelError
from mt.runtime import files
from mt.vocabulary.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import nn


AVERAGE = "average"
"""The folder name of the average of the last checkpoints."""


def delete_old_checkpoints(
    run: Path, keep_last: int, planned: Callable[[TrainState], bool]
) -> None:
    """Delete all but the best, the newest and, with it, the last `keep_last` planned ones."""
    best, folders = (run / "best").resolve(), step_folders(run)
    kept = [f for f in folders if f == folders[-1] or _is_scheduled(f, planned)][-keep_last:]
    for folder in folders:
        if folder not in kept and folder.resolve() != best:
            files.delete(folder)


def _is_scheduled(folder: Path, planned: Callable[[TrainState], bool]) -> bool:
    try:
        return planned(read_state(folder))
    except (OSError, ValueError, TypeError):
        return True  # damaged: it goes when its turn comes


def step_folders(run: Path) -> list[Path]:
    """The folders of steps, oldest first; by number, not by time."""
    return sorted((run / "checkpoints").glob("step-*"))


def latest_sound_checkpoint(run: Path, log: Callable[[str], None]) -> Path | None:
    """The newest sound checkpoint to resume from; a damaged one is set aside, with a warning.

    Raises:
        ModelError: there are checkpoints and none is sound; nothing is changed.
    """
    faults: list[tuple[Path, str]] = []
    for folder in reversed(step_folders(run)):
        why = integrity_error(folder)
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
    """A run, and the checkpoint of it that was asked for."""

    run: Path
    folder: Path
    recipe: Recipe
    vocabulary: Vocabulary
    state: TrainState
    resolved: dict[str, Any]
    """What was chosen by trying: precision, threads, micro_tokens."""
    report: dict[str, Any] = field(default_factory=dict)
    """What preparing the data counted, with their hashes."""
    scores: dict[str, Any] = field(default_factory=dict)
    """Of its test sets, where they are known."""
    serialised: bytes | None = None
    """The weights as safetensors, when they lie in no folder: those of a bundle."""

    @property
    def step(self) -> int:
        """The checkpoint's step."""
        return self.state.step

    def model(self) -> nn.Module:
        """The model with the weights to translate with.

        Raises:
            ModelError: the weights are of another model.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        model = plugin("models", self.recipe.model.kind).build(self.recipe.model, self.vocabulary)
        held = self.serialised
        try:
            weights = load_weights(self.folder) if held is None else load(held)
        except SafetensorError as error:
            advice = "restore the file from a copy"
            raise ModelError("CKPT-DAMAGED", self.folder, f"{MODEL}: {error}", advice) from None
        load_into(model, weights, self.folder)
        return model


def is_run(path: Path) -> bool:
    """Whether a run directory or one of its checkpoints lies at `path`."""
    return (path / "checkpoints").is_dir() or (path.parent.name == "checkpoints" and path.is_dir())


def open_run(path: Path, choice: str | None = None) -> LoadedModel:
    """Open a run directory or one checkpoint folder in it.

    Args:
        path: RUN or RUN/checkpoints/step-N.
        choice: `best`, `last`, `average` or `step-N`; by default the best, else the last.

    Raises:
        ModelError: not a run, no such checkpoint, or a damaged one.
    """
    advice = "give a run directory, such as runs/demo, or a checkpoint folder in it"
    if not is_run(path):
        what = "not a run (no checkpoints in it)" if path.exists() else "no such run"
        raise ModelError("RUN-NONE", path, what, advice)
    if (path / "checkpoints").is_dir():
        run, folder = path, choose_checkpoint(path, choice)
    else:
        # A link such as `best` may have been given; the run is what it points into.
        folder = path.resolve()
        run = folder.parent.parent
    why = integrity_error(folder, training=False)
    if why:
        advice = "choose another with --checkpoint, or restore the files from a copy"
        raise ModelError("CKPT-HASH", folder, why, advice)
    return LoadedModel(
        run=run,
        folder=folder,
        recipe=read_recipe(run),
        vocabulary=Vocabulary.load(run),
        state=read_state(folder),
        resolved=json.loads(_read_text(run / "resolved.json")),
        report=json.loads(_read_text(run / "report.json"))
        if (run / "report.json").exists()
        else {},
    )


def choose_checkpoint(run: Path, choice: str | None) -> Path:
    """The folder of a checkpoint by name; by default the best, else the last."""
    best = run / "best"
    steps = step_folders(run)
    names = [folder.name for folder in steps]
    if choice in (None, "best") and best.exists():
        return best.resolve()
    if choice in (None, "last") and steps:
        return steps[-1]
    if choice == "average" and (run / "checkpoints" / "average").is_dir():
        return run / "checkpoints" / "average"
    if choice and choice.startswith("step-") and choice[5:].isdigit():
        name = checkpoint_name(int(choice[5:]))
        if name in names:
            return run / "checkpoints" / name
    have = ", ".join(names) or "none"
    what = f"no checkpoint {choice or 'last'}; there are: {have}"
    advice = "choose one with --checkpoint best|last|average|step-N, or train first"
    raise ModelError("CKPT-NONE", run, what, advice)


def read_recipe(run: Path) -> Recipe:
    """The recipe that a run was begun with, or last resumed with."""
    path = run / "config.yaml"
    return parse_recipe(_read_text(path), str(path), run)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        advice = "a run directory holds config.yaml, resolved.json and a vocabulary; restore it"
        raise ModelError("RUN-DAMAGED", path, f"cannot be read ({error})", advice) from None


def create_run(run: Path, made: Recipe, vocabulary: Vocabulary, resolved: dict[str, Any]) -> None:
    """Write what makes a run self-contained: recipe, vocabulary, and what was resolved."""
    files.make_folder(run / "checkpoints")
    vocabulary.save(run)
    files.write_json(run / "resolved.json", resolved)
    write_recipe(run, made)


def write_recipe(run: Path, made: Recipe) -> None:
    """Write the recipe of a run, which a resume may have changed a little."""
    files.write_file(run / "config.yaml", recipe_text(made))


def recipe_text(made: Recipe) -> str:
    """A recipe as YAML, every default filled in."""
    text = yaml.safe_dump(recipe.dump(made), allow_unicode=True, sort_keys=False)
    return "# the resolved recipe of this run\n" + text


def average_score(run: Path, state: TrainState) -> float | None:
    """How checkpoints/average validated, if it is sound and of the end of this very run."""
    folder = run / "checkpoints" / AVERAGE
    if not folder.is_dir() or integrity_error(folder) is not None:
        return None
    made = read_state(folder)
    return made.best if made.step == state.step and made.best_step is None else None


def mark_best(run: Path, folder: Path) -> None:
    """Point RUN/best at a checkpoint."""
    files.link(run / "best", f"checkpoints/{folder.name}")


def differing_keys(
    old: dict[str, Any], new: dict[str, Any], prefix: str = ""
) -> Iterable[tuple[str, Any, Any]]:
    """Each key whose value differs: (key, old, new)."""
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from differing_keys(a, b, f"{prefix}{key}.")
        elif a != b:
            yield f"{prefix}{key}", a, b


def run_of(path: Path) -> Path:
    """The run directory of a run, or of a checkpoint folder in one."""
    return path if (path / "checkpoints").is_dir() else path.resolve().parent.parent
