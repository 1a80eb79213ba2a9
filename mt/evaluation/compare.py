"""Models side by side: BLEU on the same test sets, size, and speed measured in turn."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mt.checkpoints import checkpoint, run_directory
from mt.config.recipe import Recipe
from mt.decoding.translate import open_engine
from mt.decoding.types import EngineOptions
from mt.evaluation.evaluate import read_test_set, translate_texts
from mt.evaluation.metrics import score_translations
from mt.runtime import console

WARM_UP = 32
"""Lines translated first, without a clock."""
ROUNDS = 2
"""Measurements of each model, in turn with the others; the fastest counts."""


@dataclass(frozen=True)
class ModelRow:
    """One model of the comparison."""

    name: str
    bytes: int
    """Of its weights, on disk."""
    lines_per_second: float
    """Over all test sets, without loading."""
    bleu: dict[str, float]
    """Of each test set."""


def compare_models(
    models: dict[str, Path], recipe: Recipe, options: EngineOptions | None = None
) -> list[ModelRow]:
    """Translate the test sets of a recipe, or its validation corpus, with each of several models.

    Args:
        models: the path of each, by its name in the table.
    """
    sets = recipe.data.test or {"valid": recipe.data.valid}
    targets = {name: config.direction.target for name, config in sets.items()}
    texts = {name: read_test_set(config) for name, config in sets.items()}
    options = replace(options or EngineOptions(), low_latency=False)
    engines = {name: open_engine(path, options) for name, path in models.items()}
    seconds = dict.fromkeys(models, float("inf"))
    outputs: dict[str, dict[str, list[str]]] = {}
    with console.print_lines_once():
        name, (lines, _) = next(iter(texts.items()))
        for engine in engines.values():
            translate_texts(engine, options, lines[:WARM_UP], targets[name])
        for _ in range(ROUNDS):
            for model, engine in engines.items():
                began = time.perf_counter()
                outputs[model] = {
                    name: translate_texts(engine, options, lines, targets[name])
                    for name, (lines, _) in texts.items()
                }
                seconds[model] = min(seconds[model], time.perf_counter() - began)
    count = sum(len(lines) for lines, _ in texts.values())
    rows = []
    for model, path in models.items():
        bleu = {
            name: score_translations(
                outputs[model][name], references, targets[name], recipe.evaluation
            )["BLEU"]["score"]
            for name, (_, references) in texts.items()
        }
        rows.append(ModelRow(model, weight_bytes(path), count / seconds[model], bleu))
    return rows


def weight_bytes(path: Path) -> int:
    """The size on disk of the weights that translate, in bytes."""
    if run_directory.is_run(path):
        return (run_directory.open_run(path).folder / checkpoint.MODEL).stat().st_size
    if path.is_file():
        return path.stat().st_size
    return sum(part.stat().st_size for part in path.iterdir() if part.is_file())


def format_table(rows: Sequence[ModelRow]) -> Iterator[str]:
    """The rows as lines, with speed and size relative to the first."""
    width = max(8, *(len(row.name) for row in rows))
    widths = {name: max(8, len(name) + 2) for name in rows[0].bleu}
    titles = "".join(f"{name:>{w}}" for name, w in widths.items())
    yield f"{'':{width}} {'MB':>8} {'size':>6} {'lines/s':>9} {'speed':>6}{titles}  (BLEU)"
    first = rows[0]
    for row in rows:
        size, speed = row.bytes / first.bytes, row.lines_per_second / first.lines_per_second
        scores = "".join(f"{row.bleu[name]:>{w}.2f}" for name, w in widths.items())
        yield (
            f"{row.name:{width}} {row.bytes / 1e6:8.1f} {size:5.2f}x {row.lines_per_second:9.1f} "
            f"{speed:5.2f}x{scores}"
        )
