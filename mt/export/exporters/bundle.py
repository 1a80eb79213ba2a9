"""A bundle: the model in one file, X.mt, for `mt` itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt.checkpoints import bundle
from mt.checkpoints.run_directory import LoadedModel
from mt.config.section import Variant

if TYPE_CHECKING:
    from torch import nn


class Config(Variant):
    """No settings: the weights are kept as they are."""

    kind: str = "bundle"


def check(opened: LoadedModel, config: Config) -> None:
    """Accept any model."""


def export(model: nn.Module | Any, opened: LoadedModel, path: Path, config: Config) -> None:
    """Write the bundle to `path`, which must not exist."""
    bundle.write_bundle(path, opened, model)
