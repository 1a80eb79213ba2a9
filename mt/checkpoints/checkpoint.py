"""Checkpoints: saved whole or not at all, verified, restored.

    runs/NAME/config.yaml resolved.json vocabulary* metrics.jsonl samples.jsonl tensorboard/ .lock
              checkpoints/step-00000200/{model,training}.safetensors state.json MANIFEST.json
              best: a file that names a checkpoint

A checkpoint is a folder whose MANIFEST.json, written last, agrees with every file in it.
"""

from __future__ import annotations

import functools
import json
import re
import zipfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import create_model

from mt.checkpoints.train_state import TrainState
from mt.config.plugins import trust_recipe
from mt.config.recipe import Recipe
from mt.config.validation import validate
from mt.config.yaml_reader import parse
from mt.errors import ConfigError, ModelError
from mt.runtime import distributed, files, model_files
from mt.runtime.distributed import SINGLE, World
from mt.runtime.model_files import JsonObject

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

FORMAT = 1
MODEL, TRAINING = "model.safetensors", "training.safetensors"
STATE, MANIFEST = "state.json", "MANIFEST.json"


FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
"""The names that a manifest may list."""


class FileFacts(JsonObject):
    """What a manifest lists of a file."""

    sha256: str
    bytes: int


class Manifest(JsonObject):
    """`MANIFEST.json` of a checkpoint or a bundle."""

    format: int
    files: dict[str, FileFacts]


# -------------------------------------------------------------------------------- saving


def checkpoint_name(step: int) -> str:
    """Return the folder name of the checkpoint of a step."""
    return f"step-{step:08d}"


def save_checkpoint(
    run: Path, name: str, model: nn.Module, state: TrainState, metadata: dict[str, Any],
    training: dict[str, Tensor] | None = None,
) -> Path:  # fmt: skip
    """Save a checkpoint; it appears whole or not at all.

    Args:
        name: folder name, `checkpoint_name(step)` or `average`.
        model: the weights to translate with.
        metadata: further facts for the manifest (hashes of data and vocabulary).
        training: `training_tensors`, which only a resume needs.

    Raises:
        ModelError: a weight is not finite; nothing is written.
        MachineError: the disk is full or refuses; the earlier checkpoints are intact.
    """
    parts = serialise_checkpoint(model, state, training)
    final = run / "checkpoints" / name
    with files.staged_folder(final) as folder:
        for part, data in parts.items():
            files.write_file(folder / part, data)
        facts = {"format": FORMAT, "step": state.step, **metadata}
        files.write_json(folder / MANIFEST, {**facts, "files": files.describe_parts(parts)})
        files.delete(final)  # one of the same step, and only now that the new one is whole
    return final


def serialise_checkpoint(
    model: nn.Module, state: TrainState, training: dict[str, Tensor] | None = None
) -> dict[str, bytes]:
    """Return the bytes of each file of a checkpoint but the manifest.

    Raises:
        ModelError: a weight is not finite.
    """
    from safetensors.torch import save as serialise

    weights = model_weights(model)
    bad = [key for key, tensor in weights.items() if not bool(tensor.isfinite().all())]
    if bad:
        advice = "lower optimizer.learning_rate, then resume from the last good checkpoint"
        raise ModelError("CKPT-NONFINITE", bad[0], "holds infinities or NaN", advice)
    parts = {MODEL: serialise(weights), STATE: json.dumps(asdict(state), allow_nan=False).encode()}
    return parts if training is None else {**parts, TRAINING: serialise(training)}


def model_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return each parameter once, contiguous on the CPU; all ranks of a sharded model call this."""
    return {k: _to_cpu(p) for k, p in model.named_parameters()}


def _to_cpu(tensor: Tensor) -> Tensor:
    return distributed.full_tensor(tensor.detach()).cpu().contiguous()


def training_tensors(
    module: nn.Module, averaged: nn.Module | None, optimizer: Optimizer
) -> dict[str, Tensor]:
    """Return what a resume needs besides the weights to translate with.

    `weights/NAME` are the weights of `module`, `optimizer/NAME/KEY` their optimizer state,
    `average/NAME` the moving averages that are not of the model (those of the model translate).
    """
    tensors = {f"weights/{name}": tensor for name, tensor in model_weights(module).items()}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = _to_cpu(value)
    averages = {} if averaged is None else model_weights(averaged)
    own = {n: tensor for n, tensor in averages.items() if not n.startswith("model.")}
    return tensors | {f"average/{name}": tensor for name, tensor in own.items()}


# ------------------------------------------------------------------------------- loading


def integrity_error(folder: Path, training: bool = True) -> str | None:
    """Return why a folder is no sound checkpoint, or None; `training`: also read that file."""
    manifest_path = folder / MANIFEST
    if not manifest_path.is_file():
        return f"{MANIFEST} is missing"
    try:
        manifest = model_files.read_json(manifest_path, Manifest, newest=FORMAT)
    except ModelError as error:
        return error.problems[0][1] if error.code.endswith("NEWER") else f"{MANIFEST} is damaged"
    listed = manifest["files"]
    for name, facts in listed.items():
        path = folder / name
        if not FILE_NAME.fullmatch(name) or path.is_symlink() or not path.is_file():
            return f"{name} is missing or not a file"
        if path.stat().st_size != facts["bytes"]:
            return f"{name} size {path.stat().st_size}, manifest says {facts['bytes']}"
        if name == TRAINING and not training:
            continue
        if files.sha256(path) != facts["sha256"]:
            return f"{name} does not have the bytes that the manifest says"
    return None if MODEL in listed and STATE in listed else f"{MANIFEST} lists no model"


def parse_recipe(text: str, name: str, folder: Path) -> Recipe:
    """Parse the recipe of a run or bundle; head gates of kind `topk` are mixture_of_heads now.

    Raises:
        ModelError: it is damaged; the codes are those of a recipe that the user has written.
    """
    try:
        return _parse_recipe(text, name, folder)
    except ConfigError as error:
        (where, what), *others = error.problems
        raise ModelError(error.code, where, what, error.advice, others) from None


def _parse_recipe(text: str, name: str, folder: Path) -> Recipe:
    document = parse(text, name, folder)
    trust_recipe(document.value)
    model = document.value.get("model")
    gates = model.get("head_gates") if isinstance(model, dict) else None
    if isinstance(model, dict) and isinstance(gates, dict) and gates.get("kind") == "topk":
        old = ("head_gates", "layer_heads", "scale_attention")
        document.value["model"] = {
            **{key: value for key, value in model.items() if key not in old},
            "kind": "mixture_of_heads", "heads_per_sentence": gates.get("heads"),
            "balance_weight": gates.get("weight", 0.01),
        }  # fmt: skip
    return validate(Recipe, document)


def read_state(folder: Path | zipfile.Path) -> TrainState:
    """Read the state of a sound checkpoint; ignore fields of other versions.

    Raises:
        ModelError: it is missing or damaged.
    """
    names = {each.name for each in fields(TrainState)}
    state = model_files.read_json(folder / STATE, _state_shape())
    return TrainState(**{key: value for key, value in state.items() if key in names})


@functools.cache
def _state_shape() -> type[JsonObject]:
    """Return the types of the fields of a TrainState."""
    types = get_type_hints(TrainState)
    every: dict[str, Any] = {f.name: (types[f.name], f.default) for f in fields(TrainState)}
    return create_model("State", __base__=JsonObject, **every)


def load_weights(folder: Path) -> dict[str, Tensor]:
    """Load the weights to translate with."""
    from safetensors.torch import load_file

    return load_file(folder / MODEL)


def load_into(model: nn.Module, weights: dict[str, Tensor], where: Path) -> None:
    """Copy weights into a model, which must have exactly these.

    Raises:
        ModelError: names the tensors that are missing, surplus or of another shape.
    """
    import torch

    from mt.checkpoints.tensor_shapes import check_shapes

    named = dict(model.named_parameters())
    wanted, given = (
        {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        for tensors in (named, weights)
    )
    check_shapes(wanted, given, where)
    with torch.no_grad():
        for key, parameter in named.items():
            parameter.copy_(distributed.distribute_like(weights[key], parameter))


def restore_training(
    folder: Path, module: nn.Module, averaged: nn.Module | None, optimizer: Optimizer,
    world: World = SINGLE,
) -> TrainState:  # fmt: skip
    """Restore the arguments of `training_tensors` from a sound checkpoint; only rank 0 reads it."""
    from safetensors.torch import load_file

    training = distributed.tensors_from_main(world, lambda: load_file(folder / TRAINING))
    load_into(module, _with_prefix("weights/", training), folder)
    if averaged is not None:
        loaded = distributed.tensors_from_main(world, lambda: load_weights(folder))
        weights = {f"model.{name}": tensor for name, tensor in loaded.items()}
        load_into(averaged, {**weights, **_with_prefix("average/", training)}, folder)
    named = dict(module.named_parameters())
    for path, tensor in _with_prefix("optimizer/", training).items():
        name, _, key = path.rpartition("/")
        optimizer.state[named[name]][key] = distributed.distribute_like(tensor, named[name]).clone()
    return TrainState(**distributed.from_main(world, lambda: asdict(read_state(folder))))


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
