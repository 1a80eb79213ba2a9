"""What a recipe needs and this machine lacks: files, packages, devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from mt.config.plugins import plugin
from mt.config.recipe import Recipe
from mt.config.schema import SourceConfig
from mt.config.section import input_files
from mt.data.cleaning import Cleaner
from mt.errors import MtError
from mt.evaluation.scoring import make_metrics
from mt.runtime import text_files
from mt.runtime.device import pick_device


def missing_requirements(recipe: Recipe) -> list[MtError]:
    """Return an error for each thing that the recipe needs and that is not there.

    Nothing is downloaded, and no corpus is read.
    """
    found: dict[str, MtError] = {}
    for check in _checks(recipe):
        try:
            check()
        except MtError as error:
            found.setdefault(str(error), error)
    return list(found.values())


def _checks(recipe: Recipe) -> Iterator[Callable[[], object]]:
    yield partial(pick_device, recipe.runtime.device)
    data = recipe.data
    held_out = [data.valid, *data.more_valid, *data.test.values()]
    for source in [*data.train, *held_out]:
        yield from _source_checks(source)
    for source in data.train:
        yield partial(Cleaner, data.clean, source.direction, (), source.side, lambda line: None)
    for source in held_out:
        yield partial(make_metrics, source.direction.target, recipe.evaluation)
    yield partial(plugin("search", recipe.search.kind).build, recipe.search)


def _source_checks(source: SourceConfig) -> Iterator[Callable[[], object]]:
    for path in input_files(source).values():
        yield partial(_open, Path(path))
    yield partial(plugin, "sources", source.kind)


def _open(path: Path) -> None:
    text_files.open_bytes(path).close()
