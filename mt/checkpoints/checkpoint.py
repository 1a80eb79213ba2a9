"""The run directory: checkpoints saved whole or not at all, verified, found, loaded, pruned.

    runs/NAME/config.yaml resolved.json vocabulary* metrics.jsonl tensorboard/ .lock
              checkpoints/step-00000200/{model,training}.safetensors state.json MANIFEST.json
              best -> checkpoints/step-...

A checkpoint is a folder whose MANIFEST.json, written last, agrees with every file in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mt.config import recipe
from mt.config.recipe import Recipe
from mt.config.yaml_reader import parse, plugin, validate
from mt.errors import ModelError
from mt.runtime import distributed, files
from mt.runtime.distributed import ALONE, World
from mt.vocabulary.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

FORMAT = 1
AVERAGE = "average"
"""The folder name of the average of the last checkpoints."""
MAX_JSON = 10 << 20
MODEL, TRAINING, STATE, MANIFEST = (
    "model.safetensors",
    "training.safetensors",
    "state.json",
    "MANIFEST.json",
)


@dataclass(frozen=True)
class TrainState:
    """All that must survive a crash besides tensors."""

    step: int = 0
    """Updates made."""
    tokens: int = 0
    """Real target tokens seen."""
    epoch: int = 0
    """The epoch of the next update, counted from 0."""
    window: int = 0
    """The window within its epoch of the next update, counted from 0."""
    update: int = 0
    """The number within its window, or its epoch when streamed, of the next update, from 0."""
    best: float | None = None
    """The best value of what is monitored, larger is better."""
    best_step: int | None = None
    since_best: int = 0
    """Validations since the best one."""
    gap: dict[str, Any] | None = None
    """What `mt.overfitting` remembers of the validations so far."""
    validated: int | None = None
    """The step of the last validation."""
    skipped: int = 0
    """Updates skipped because the gradient was not finite."""
    skipped_in_a_row: int = 0
    seconds: float = 0.0
    """Time spent training, over all sessions."""
    scaler: dict[str, float] | None = None
    """The fp16 gradient scaler."""
    stream: dict[str, Any] | None = None
    """Where this process is in a streamed corpus; in a checkpoint, where each is (`ranks`)."""
    finished: str = ""
    """Why training has ended, when it has."""


# -------------------------------------------------------------------------------- saving


def name_of(step: int) -> str:
    """The folder name of a step's checkpoint."""
    return f"step-{step:08d}"


def save(
    run: Path,
    name: str,
    model: nn.Module,
    state: TrainState,
    about: dict[str, Any],
    training: dict[str, Tensor] | None = None,
) -> Path:
    """Save a checkpoint; it appears whole or not at all.

    Args:
        run: the run directory.
        name: folder name, `name_of(step)` or `average`.
        model: the weights to translate with.
        state: what else must survive.
        about: further facts for the manifest (hashes of data and vocabulary).
        training: what only training needs, from `training_tensors`.

    Raises:
        ModelError: a weight is not finite; nothing is written.
        MachineError: the disk is full or refuses; the earlier checkpoints are intact.
    """
    from safetensors.torch import save as serialise

    weights = weights_of(model)
    bad = [key for key, tensor in weights.items() if not bool(tensor.isfinite().all())]
    if bad:
        advice = "lower optimizer.learning_rate, then resume from the last good checkpoint"
        raise ModelError("CKPT-NONFINITE", bad[0], "holds infinities or NaN", advice)
    parts = {MODEL: serialise(weights), STATE: json.dumps(asdict(state), allow_nan=False).encode()}
    if training is not None:
        parts[TRAINING] = serialise(training)
    listed = {
        part: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for part, data in parts.items()
    }
    final = run / "checkpoints" / name
    with files.new_folder(final) as folder:
        for part, data in parts.items():
            files.write(folder / part, data)
        manifest = {"format": FORMAT, "step": state.step, **about, "files": listed}
        files.write_json(folder / MANIFEST, manifest)
        files.discard(final)  # one of the same step, and only now that the new one is whole
    return final


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter once, a shared one under its owner's name, contiguous on the CPU.

    Parts that several processes hold are put together: all of them must call this.
    """
    return {k: _stored(p) for k, p in model.named_parameters()}


def _stored(tensor: Tensor) -> Tensor:
    return distributed.whole(tensor.detach()).cpu().contiguous()


def training_tensors(
    step: nn.Module, averaged: nn.Module | None, optimizer: Optimizer
) -> dict[str, Tensor]:
    """What going on needs besides the weights that translate.

    `weights/NAME` is what trains, `optimizer/NAME/KEY` its optimizer state, `average/NAME` the
    moving average of what is not the model's (that of the model is what translates).
    """
    named = dict(step.named_parameters())
    tensors = {f"weights/{name}": tensor for name, tensor in weights_of(step).items()}
    for name, parameter in named.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = _stored(value)
    if averaged is not None:
        for name, tensor in weights_of(averaged).items():
            if not name.startswith("model."):
                tensors[f"average/{name}"] = tensor
    return tensors


def prune(run: Path, keep_last: int, planned: Callable[[TrainState], bool]) -> None:
    """Delete all but the best, the newest and, with it, the last `keep_last` planned ones."""
    best, folders = (run / "best").resolve(), _steps(run)
    kept = [f for f in folders if f == folders[-1] or _is_planned(f, planned)][-keep_last:]
    for folder in folders:
        if folder not in kept and folder.resolve() != best:
            files.discard(folder)


def _is_planned(folder: Path, planned: Callable[[TrainState], bool]) -> bool:
    try:
        return planned(read_state(folder))
    except (OSError, ValueError, TypeError):
        return True  # damaged: it goes when its turn comes


def _steps(run: Path) -> list[Path]:
    """The folders of steps, oldest first; by number, not by time."""
    return sorted((run / "checkpoints").glob("step-*"))


# ------------------------------------------------------------------------------- loading


def fault(folder: Path, training: bool = True) -> str | None:
    """Why a folder is not a sound checkpoint, or None when it is; reads every byte.

    Without `training`, what only training needs is not read.
    """
    manifest_path = folder / MANIFEST
    if not manifest_path.is_file() or manifest_path.stat().st_size > MAX_JSON:
        return f"{MANIFEST} is missing"
    try:
        manifest = files.read_json(manifest_path)
        listed = dict(manifest["files"])
        version = int(manifest["format"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"{MANIFEST} is damaged"
    if version > FORMAT:
        return f"made by a newer mt (format {version}, this one reads {FORMAT})"
    for name, facts in listed.items():
        path = folder / name
        if Path(name).name != name or path.is_symlink() or not path.is_file():
            return f"{name} is missing or not a file"
        if path.stat().st_size != facts.get("bytes"):
            return f"{name} size {path.stat().st_size}, manifest says {facts.get('bytes')}"
        if name == TRAINING and not training:
            continue
        if files.sha256(path) != facts.get("sha256"):
            return f"{name} does not have the bytes that the manifest says"
    return None if MODEL in listed and STATE in listed else f"{MANIFEST} lists no model"


def latest(run: Path, tell: Callable[[str], None]) -> Path | None:
    """The newest sound checkpoint to resume from; a damaged one is set aside, with a warning.

    Raises:
        ModelError: there are checkpoints and none is sound; nothing is changed.
    """
    faults: list[tuple[Path, str]] = []
    for folder in reversed(_steps(run)):
        why = fault(folder)
        if why is None:
            for bad, reason in faults:
                tell(f"mt: warning[CKPT-SKIP] {bad.name}: {reason}; set aside")
                files.move(bad, bad.parent / f".bad-{bad.name}")
            return folder
        faults.append((folder, why))
    if faults:
        (folder, why), *others = faults
        advice = "restore one from a copy, or start over with --fresh"
        raise ModelError("CKPT-NONE", folder, why, advice, others)
    return None


@dataclass(frozen=True)
class Opened:
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
        fit(model, weights, self.folder)
        return model


def is_run(path: Path) -> bool:
    """Whether a run directory or one of its checkpoints lies at `path`."""
    return (path / "checkpoints").is_dir() or (path.parent.name == "checkpoints" and path.is_dir())


def open_run(path: Path, choice: str | None = None) -> Opened:
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
        run, folder = path, _chosen(path, choice)
    else:
        # A link such as `best` may have been given; the run is what it points into.
        folder = path.resolve()
        run = folder.parent.parent
    why = fault(folder, training=False)
    if why:
        advice = "choose another with --checkpoint, or restore the files from a copy"
        raise ModelError("CKPT-HASH", folder, why, advice)
    return Opened(
        run=run,
        folder=folder,
        recipe=read_recipe(run),
        vocabulary=Vocabulary.load(run),
        state=read_state(folder),
        resolved=json.loads(_read(run / "resolved.json")),
        report=json.loads(_read(run / "report.json")) if (run / "report.json").exists() else {},
    )


def _chosen(run: Path, choice: str | None) -> Path:
    best = run / "best"
    steps = _steps(run)
    names = [folder.name for folder in steps]
    if choice in (None, "best") and best.exists():
        return best.resolve()
    if choice in (None, "last") and steps:
        return steps[-1]
    if choice == "average" and (run / "checkpoints" / "average").is_dir():
        return run / "checkpoints" / "average"
    if choice and choice.startswith("step-") and choice[5:].isdigit():
        name = name_of(int(choice[5:]))
        if name in names:
            return run / "checkpoints" / name
    have = ", ".join(names) or "none"
    what = f"no checkpoint {choice or 'last'}; there are: {have}"
    advice = "choose one with --checkpoint best|last|average|step-N, or train first"
    raise ModelError("CKPT-NONE", run, what, advice)


def read_recipe(run: Path) -> Recipe:
    """The recipe that a run was begun with, or last resumed with."""
    path = run / "config.yaml"
    return validate(Recipe, parse(_read(path), str(path), run))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        advice = "a run directory holds config.yaml, resolved.json and a vocabulary; restore it"
        raise ModelError("RUN-DAMAGED", path, f"cannot be read ({error})", advice) from None


def read_state(folder: Path | zipfile.Path) -> TrainState:
    """The state of a sound checkpoint."""
    known = {each.name for each in fields(TrainState)}
    return TrainState(**{k: v for k, v in files.read_json(folder / STATE).items() if k in known})


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The weights to translate with."""
    from safetensors.torch import load_file

    return load_file(folder / MODEL)


def fit(model: nn.Module, weights: dict[str, Tensor], where: Path) -> None:
    """Copy weights into a model, which must have exactly these.

    Raises:
        ModelError: names the tensors that are missing, surplus or of another shape.
    """
    import torch

    named = dict(model.named_parameters())
    problems = [(where, f"{key}: missing") for key in named.keys() - weights.keys()]
    problems += [(where, f"{key}: unknown") for key in weights.keys() - named.keys()]
    for key in sorted(named.keys() & weights.keys()):
        have, want = tuple(weights[key].shape), tuple(named[key].shape)
        if have != want:
            problems.append((where, f"{key}: is {have}, the model wants {want}"))
    if problems:
        (place, what), *others = sorted(problems, key=lambda p: p[1])[:10]
        advice = "the run's config.yaml and its checkpoints do not belong together"
        raise ModelError("CKPT-SHAPE", place, what, advice, others)
    with torch.no_grad():
        for key, parameter in named.items():
            parameter.copy_(distributed.like(weights[key], parameter))


def restore(
    folder: Path, step: nn.Module, averaged: nn.Module | None, optimizer: Optimizer,
    world: World = ALONE,
) -> TrainState:  # fmt: skip
    """Put what trains, its moving average and its optimizer back to where they were saved.

    Only the first of several processes reads the checkpoint.

    Args:
        folder: a sound checkpoint.
        step: model and objective, as `training_tensors` got them.
        averaged: their moving average, or None.
        optimizer: of the parameters of `step`.
    """
    from safetensors.torch import load_file

    training = distributed.tensors_of_first(world, lambda: load_file(folder / TRAINING))
    fit(step, _below("weights/", training), folder)
    if averaged is not None:
        loaded = distributed.tensors_of_first(world, lambda: load_weights(folder))
        weights = {f"model.{name}": tensor for name, tensor in loaded.items()}
        fit(averaged, {**weights, **_below("average/", training)}, folder)
    named = dict(step.named_parameters())
    for path, tensor in _below("optimizer/", training).items():
        name, _, key = path.rpartition("/")
        optimizer.state[named[name]][key] = distributed.like(tensor, named[name]).clone()
    return TrainState(**distributed.of_first(world, lambda: asdict(read_state(folder))))


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


# ---------------------------------------------------------------------------- the run


def begin(run: Path, made: Recipe, vocabulary: Vocabulary, resolved: dict[str, Any]) -> None:
    """Write what makes a run self-contained: recipe, vocabulary, and what was resolved."""
    files.make_folder(run / "checkpoints")
    vocabulary.save(run)
    files.write_json(run / "resolved.json", resolved)
    write_recipe(run, made)


def write_recipe(run: Path, made: Recipe) -> None:
    """Write the recipe of a run, which a resume may have changed a little."""
    files.write(run / "config.yaml", recipe_text(made))


def recipe_text(made: Recipe) -> str:
    """A recipe as YAML, every default filled in."""
    text = yaml.safe_dump(recipe.dump(made), allow_unicode=True, sort_keys=False)
    return "# the resolved recipe of this run\n" + text


def last_steps(run: Path, count: int) -> list[Path]:
    """The checkpoint folders of the last `count` steps, oldest first."""
    return _steps(run)[-count:]


def fit_mean(folders: Sequence[Path], model: nn.Module) -> None:
    """Put the mean of the weights of these sound checkpoints into `model`."""
    from mt.checkpoints.averaging import mean

    fit(model, mean(load_weights(folder) for folder in folders), folders[-1])


def average(run: Path, names: Sequence[str], last: int, replace: bool = False) -> list[str]:
    """Save the mean of checkpoints' weights as checkpoints/average, whole or not at all.

    Args:
        run: a run directory in which nobody trains.
        names: its checkpoints (`step-N`); when there are none, the `last` ones.
        last: how many of the last ones.
        replace: an average that is there already is replaced.

    Returns:
        The folder names of the checkpoints that were averaged.

    Raises:
        ModelError: there are fewer than two, one is missing or damaged, or there is an average.
        MachineError: the run is in training.
    """
    run = open_run(run, names[0] if names else "last").run  # what is none is told, not made one
    with files.lock(run / ".lock"):
        if (run / "checkpoints" / AVERAGE).exists() and not replace:
            advice = f"translate with --checkpoint {AVERAGE}, or replace it with --force"
            raise ModelError("AVERAGE-EXISTS", run, "it has an average already", advice)
        folders = sorted({_chosen(run, name) for name in names}) or last_steps(run, last)
        if len(folders) < 2:
            what = f"{len(folders)} checkpoint is no more than itself"
            advice = "name two or more, or keep more with training.keep_last"
            raise ModelError("AVERAGE-FEW", run, what, advice)
        opened = [open_run(folder) for folder in folders]
        newest = opened[-1]
        model = plugin("models", newest.recipe.model.kind).build(
            newest.recipe.model, newest.vocabulary
        )
        fit_mean(folders, model)
        about = files.read_json(newest.folder / MANIFEST)
        about = {key: about[key] for key in about.keys() - {"format", "step", "files"}}
        made = [folder.name for folder in folders]
        state = dataclasses.replace(newest.state, best=None, best_step=None)
        save(run, AVERAGE, model, state, {**about, "averaged": made})
    return made


def average_of(run: Path, state: TrainState) -> float | None:
    """How checkpoints/average validated, if it is sound and of the end of this very run."""
    folder = run / "checkpoints" / AVERAGE
    if not folder.is_dir() or fault(folder) is not None:
        return None
    made = read_state(folder)
    return made.best if made.step == state.step and made.best_step is None else None


def mark_best(run: Path, folder: Path) -> None:
    """Point RUN/best at a checkpoint."""
    files.link(run / "best", f"checkpoints/{folder.name}")


def changed_keys(
    old: dict[str, Any], new: dict[str, Any], prefix: str = ""
) -> Iterable[tuple[str, Any, Any]]:
    """Each key whose value differs: (key, old, new)."""
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from changed_keys(a, b, f"{prefix}{key}.")
        elif a != b:
            yield f"{prefix}{key}", a, b
