"""The run directory: checkpoints saved whole or not at all, verified, found, loaded, pruned.

    runs/NAME/config.yaml resolved.json vocabulary* metrics.jsonl tensorboard/ .lock
              checkpoints/step-00000200/{model,training}.safetensors state.json MANIFEST.json
              best -> checkpoints/step-...

A checkpoint is a folder whose MANIFEST.json, written last, agrees with every file in it.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt.checkpoints.train_state import TrainState
from mt.config.recipe import Recipe
from mt.config.validation import validate
from mt.config.yaml_reader import parse
from mt.errors import ModelError
from mt.runtime import distributed, files
from mt.runtime.distributed import SINGLE, World

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

FORMAT = 1
MAX_JSON = 10 << 20
MODEL, TRAINING, STATE, MANIFEST = (
    "model.safetensors",
    "training.safetensors",
    "state.json",
    "MANIFEST.json",
)


# -------------------------------------------------------------------------------- saving


def checkpoint_name(step: int) -> str:
    """The folder name of a step's checkpoint."""
    return f"step-{step:08d}"


def save_checkpoint(
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

    weights = model_weights(model)
    bad = [key for key, tensor in weights.items() if not bool(tensor.isfinite().all())]
    if bad:
        advice = "lower optimizer.learning_rate, then resume from the last good checkpoint"
        raise ModelError("CKPT-NONFINITE", bad[0], "holds infinities or NaN", advice)
    parts = {MODEL: serialise(weights), STATE: json.dumps(asdict(state), allow_nan=False).encode()}
    if training is not None:
        parts[TRAINING] = serialise(training)
    final = run / "checkpoints" / name
    with files.staged_folder(final) as folder:
        for part, data in parts.items():
            files.write_file(folder / part, data)
        manifest = {
            "format": FORMAT,
            "step": state.step,
            **about,
            "files": files.describe_parts(parts),
        }
        files.write_json(folder / MANIFEST, manifest)
        files.delete(final)  # one of the same step, and only now that the new one is whole
    return final


def model_weights(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter once, a shared one under its owner's name, contiguous on the CPU.

    Parts that several processes hold are put together: all of them must call this.
    """
    return {k: _to_cpu(p) for k, p in model.named_parameters()}


def _to_cpu(tensor: Tensor) -> Tensor:
    return distributed.full_tensor(tensor.detach()).cpu().contiguous()


def training_tensors(
    step: nn.Module, averaged: nn.Module | None, optimizer: Optimizer
) -> dict[str, Tensor]:
    """What going on needs besides the weights that translate.

    `weights/NAME` is what trains, `optimizer/NAME/KEY` its optimizer state, `average/NAME` the
    moving average of what is not the model's (that of the model is what translates).
    """
    named = dict(step.named_parameters())
    tensors = {f"weights/{name}": tensor for name, tensor in model_weights(step).items()}
    for name, parameter in named.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = _to_cpu(value)
    if averaged is not None:
        for name, tensor in model_weights(averaged).items():
            if not name.startswith("model."):
                tensors[f"average/{name}"] = tensor
    return tensors


# ------------------------------------------------------------------------------- loading


def integrity_error(folder: Path, training: bool = True) -> str | None:
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


def parse_recipe(text: str, name: str, folder: Path) -> Recipe:
    """Parse the recipe of a run or bundle, also of one with `model.head_gates.kind: topk`.

    Such a model is of the kind `mixture_of_heads` now.
    """
    document = parse(text, name, folder)
    model = document.value.get("model")
    gates = model.get("head_gates") if isinstance(model, dict) else None
    if isinstance(model, dict) and isinstance(gates, dict) and gates.get("kind") == "topk":
        kept = model.keys() - {"head_gates", "layer_heads", "scale_attention"}
        model = {key: value for key, value in model.items() if key in kept}
        new = {
            "heads_per_sentence": gates.get("heads"),
            "balance_weight": gates.get("weight", 0.01),
        }
        document.value["model"] = {**model, "kind": "mixture_of_heads", **new}
    return validate(Recipe, document)


def read_state(folder: Path | zipfile.Path) -> TrainState:
    """The state of a sound checkpoint."""
    known = {each.name for each in fields(TrainState)}
    return TrainState(**{k: v for k, v in files.read_json(folder / STATE).items() if k in known})


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The weights to translate with."""
    from safetensors.torch import load_file

    return load_file(folder / MODEL)


def load_into(model: nn.Module, weights: dict[str, Tensor], where: Path) -> None:
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
            parameter.copy_(distributed.distribute_like(weights[key], parameter))


def restore_training(
    folder: Path, step: nn.Module, averaged: nn.Module | None, optimizer: Optimizer,
    world: World = SINGLE,
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

    training = distributed.tensors_from_main(world, lambda: load_file(folder / TRAINING))
    load_into(step, _with_prefix("weights/", training), folder)
    if averaged is not None:
        loaded = distributed.tensors_from_main(world, lambda: load_weights(folder))
        weights = {f"model.{name}": tensor for name, tensor in loaded.items()}
        load_into(averaged, {**weights, **_with_prefix("average/", training)}, folder)
    named = dict(step.named_parameters())
    for path, tensor in _with_prefix("optimizer/", training).items():
        name, _, key = path.rpartition("/")
        optimizer.state[named[name]][key] = distributed.distribute_like(tensor, named[name]).clone()
    return TrainState(**distributed.from_main(world, lambda: asdict(read_state(folder))))


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
