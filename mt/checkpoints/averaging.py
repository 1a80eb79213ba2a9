"""The mean of the weights of several checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mt.checkpoints.checkpoint import (
    MANIFEST,
    Manifest,
    load_into,
    load_weights,
    save_checkpoint,
)
from mt.checkpoints.run_directory import AVERAGE, choose_checkpoint, open_run, step_folders
from mt.errors import ModelError
from mt.runtime import model_files
from mt.runtime.lock import lock

if TYPE_CHECKING:
    from torch import Tensor, nn


def mean_weights(weights: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of the weights of several models (section 6.1), summed in fp64."""
    count = 0
    total: dict[str, Tensor] = {}
    for one in weights:
        count += 1
        for name, tensor in one.items():
            total[name] = total[name] + tensor.double() if name in total else tensor.double()
    return {name: (tensor / count).float() for name, tensor in total.items()}


def last_checkpoints(run: Path, count: int) -> list[Path]:
    """Return the checkpoint folders of the last `count` steps, oldest first."""
    return step_folders(run)[-count:]


def load_mean(folders: Sequence[Path], model: nn.Module) -> None:
    """Load the mean of the weights of sound checkpoints into a model."""
    load_into(model, mean_weights(load_weights(folder) for folder in folders), folders[-1])


def average_checkpoints(
    run: Path, names: Sequence[str], last: int, replace: bool = False
) -> list[str]:
    """Save the mean of the weights of checkpoints as checkpoints/average; return their names.

    Averages the checkpoints `names` (`step-N`); when there are none, the `last` ones.

    Raises:
        ModelError: there are fewer than two, one is missing or damaged, or there is an average.
        MachineError: the run is in training.
    """
    run = open_run(run, names[0] if names else "last").run  # refuses a folder that is no run
    with lock(run / ".lock"):
        if (run / "checkpoints" / AVERAGE).exists() and not replace:
            advice = f"translate with --checkpoint {AVERAGE}, or replace it with --force"
            raise ModelError("AVERAGE-EXISTS", run, "it has an average already", advice)
        folders = sorted({choose_checkpoint(run, name) for name in names})
        folders = folders or last_checkpoints(run, last)
        if len(folders) < 2:
            what = f"{len(folders)} checkpoint is no more than itself"
            advice = "name two or more, or keep more with training.keep_last"
            raise ModelError("AVERAGE-FEW", run, what, advice)
        opened = [open_run(folder) for folder in folders]
        newest = opened[-1]
        model = newest.build()
        load_mean(folders, model)
        manifest = model_files.read_json(newest.folder / MANIFEST, Manifest)
        metadata = {key: manifest[key] for key in manifest.keys() - {"format", "step", "files"}}
        metadata["averaged"] = [folder.name for folder in folders]
        state = dataclasses.replace(
            newest.state, best=None, best_criteria=None, best_step=None, quality=None
        )
        save_checkpoint(run, AVERAGE, model, state, metadata)
    return [folder.name for folder in folders]
