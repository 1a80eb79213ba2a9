"""Restore a run from its last checkpoint, and refuse changed recipes or data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mt.checkpoints import checkpoint, run_directory
from mt.checkpoints.train_state import TrainState
from mt.config.recipe import Recipe, dump
from mt.config.schema import SourceConfig
from mt.config.section import map_input_files
from mt.data.cache import changed_files
from mt.errors import ConfigError, DataError, MtError
from mt.runtime import model_files
from mt.training import finetuning
from mt.training.session import TrainingRun

CHANGEABLE_KEYS = (
    "training.max_", "training.report_every", "training.validate_every", "training.save_every",
    "training.keep_last", "training.patience", "training.samples", "training.validate_sentences",
    "data.processes", "data.test", "search.", "evaluation.", "runtime.",
)  # fmt: skip
"""Keys that a resumed run may change; all others would make it another run."""


def resume_run(run: TrainingRun, folder: Path) -> TrainState:
    """Restore weights, optimizer, average and position from a checkpoint folder."""
    if run.world.is_main:
        check_data(run, folder)
    averaged = run.average.module if run.average else None
    state = checkpoint.restore_training(folder, run.module, averaged, run.optimizer, run.world)
    state = replace(state, stream=run.data.unpack_cursor(state.stream))
    if state.scaler:
        run.scaler.load_state_dict(state.scaler)
    if state.best_step is not None and run.world.is_main:
        best = run.folder / "checkpoints" / checkpoint.checkpoint_name(state.best_step)
        if best.is_dir() and run_directory.best_checkpoint(run.folder) != best:
            run_directory.mark_best(run.folder, best)  # a crash came between the two
    run.report.log(f"resuming {run.folder} after step {state.step}")
    return state


def check_recipe(run: Path, recipe: Recipe) -> None:
    """Raise a ConfigError, which names each key, when a recipe would change a begun run.

    Files may have other paths than before: `check_data` compares what is in them.
    """
    before = run_directory.read_recipe(run)
    fixed = ("training.max_steps", "training.max_epochs") if recipe.schedule.falls_to_zero else ()
    old_plain, plain = (dump(map_input_files(each, lambda _: "")) for each in (before, recipe))
    other = {key for key, _, _ in run_directory.differing_keys(old_plain, plain)}
    if not _begins_alike(run, before, recipe):
        other.add(finetuning.KEY)
    differing = [
        (f"{run / 'config.yaml'}", f"{key}: {old!r} -> {new!r}")
        for key, old, new in run_directory.differing_keys(dump(before), dump(recipe))
        if key in other and (not key.startswith(CHANGEABLE_KEYS) or key in fixed)
    ]
    if differing:
        (where, what), *others = differing
        advice = "undo the change, train into another folder with --run, or start over with --fresh"
        raise ConfigError("RESUME-CONFIG", where, what, advice, others)


def _begins_alike(run: Path, before: Recipe, recipe: Recipe) -> bool:
    """Whether a recipe names the weights that a run began with, wherever they lie now."""
    old, new = (each.training.initialise_from for each in (before, recipe))
    if old == new or old is None or new is None:
        return old == new
    try:
        origin = model_files.read_json(run / "resolved.json")["initialised"]["weights"]
        return bool(finetuning.read_initial_weights(recipe)[1]["weights"] == origin)
    except (MtError, OSError, ValueError, LookupError, TypeError):
        return False


def check_data(run: TrainingRun, folder: Path) -> None:
    """Raise a DataError, which names each file, when data or vocabulary have changed."""
    manifest = model_files.read_json(folder / checkpoint.MANIFEST, checkpoint.Manifest)
    metadata = run.metadata
    changed = [key for key, value in metadata.items() if manifest.get(key, value) != value]
    if not changed:
        return
    before = run_directory.read_report(run.folder)
    since, vocabulary = f"changed since {folder.name}", run.recipe.vocabulary.path
    differing = changed_files(before, run.data.prepared.report)
    problems = [(path, f"{since}: {hashes}") for path, hashes in differing]
    if not problems and vocabulary and "vocabulary" in changed:
        hashes = f"{manifest['vocabulary']} -> {metadata['vocabulary']}"
        problems = [(vocabulary, f"{since}: {hashes}")]
    if not problems:
        what = f"the {' and '.join(changed)} {since}; read from {describe_corpora(run.recipe)}"
        problems = [(str(run.folder), what)]
    (where, what), *others = problems
    advice = "restore the data and their files, or start over with --fresh"
    raise DataError("RESUME-DATA", where, what, advice, others)


def describe_corpora(recipe: Recipe) -> str:
    """Describe the corpora by their keys: `data.train.0 (kind=huggingface, dataset=...)`."""
    named = {f"data.train.{i}": source for i, source in enumerate(recipe.data.train)}
    named["data.valid"] = recipe.data.valid
    named |= {f"data.more_valid.{i}": source for i, source in enumerate(recipe.data.more_valid)}

    def describe(source: SourceConfig) -> str:
        settings = source.model_dump(include=source.model_fields_set - {"languages"})
        return ", ".join(f"{name}={value}" for name, value in settings.items())

    return ", ".join(f"{key} ({describe(source)})" for key, source in named.items())
