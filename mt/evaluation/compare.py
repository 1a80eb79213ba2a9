"""Models side by side: BLEU on the same test sets, size, and speed measured in turn."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mt.checkpoints import checkpoint, run_directory
from mt.config.recipe import Recipe
from mt.decoding.translate import open_engine
from mt.decoding.types import EngineOptions
from mt.evaluation import evaluate, scoring
from mt.runtime import console

WARM_UP = 32
"""Lines that are translated first, and not counted."""
ROUNDS = 2
"""How often each translates all lines, in turn with the others; the fastest round counts."""


@dataclass(frozen=True)
class ModelRow:
    """What a table of models compares."""

    name: str
    bytes: int
    """Of its weights, on disk."""
    lines_per_second: float | None
    """Over all test sets, loading left out; None: nothing here opens it."""
    bleu: dict[str, float] | None
    """Of each test set, NaN where it is undefined; None without references."""


def compare_models(
    models: dict[str, Path], recipe: Recipe, options: EngineOptions | None = None
) -> list[ModelRow]:
    """Translate the test sets of a recipe with each of several models, named by the keys.

    The validation corpus is used when the recipe has no test set.
    """
    sets = recipe.data.test or {"valid": recipe.data.valid}
    texts = {name: evaluate.read_test_set(config) for name, config in sets.items()}
    options = replace(options or EngineOptions(), low_latency=False)
    engines = {name: open_engine(path, options) for name, path in models.items()}
    targets = {name: config.direction.target for name, config in sets.items()}
    first, (some, _) = next(iter(texts.items()))
    seconds = dict.fromkeys(models, float("inf"))
    outputs: dict[str, dict[str, list[str]]] = {}
    with console.print_lines_once():
        for engine in engines.values():
            evaluate.translate_texts(engine, options, some[:WARM_UP], targets[first])
        for _ in range(ROUNDS):
            for name, engine in engines.items():
                start = time.perf_counter()
                outputs[name] = {
                    each: evaluate.translate_texts(engine, options, lines, targets[each])
                    for each, (lines, _) in texts.items()
                }
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    count = sum(len(lines) for lines, _ in texts.values())
    rows = []
    for name, path in models.items():
        bleu = {
            each: scoring.bleu_and_chrf(
                outputs[name][each], texts[each][1][0], targets[each], recipe.evaluation
            )[0]
            for each in sets
        }
        rows.append(ModelRow(name, weight_bytes(path), count / seconds[name], bleu))
    return rows


def weight_bytes(path: Path) -> int:
    """Bytes on disk of the weights of a run, of a file, or of all files in an exported folder."""
    if run_directory.is_run(path):
        path = run_directory.open_run(path).folder / checkpoint.MODEL
    parts = [path] if path.is_file() else [part for part in path.rglob("*") if part.is_file()]
    return sum(part.stat().st_size for part in parts)


def format_table(rows: Sequence[ModelRow]) -> Iterator[str]:
    """The rows as lines, speed and size also as ratios to the first."""
    first = rows[0]
    sets = list(first.bleu or ())
    cells = [["", "MB", "size", "lines/s", "speed", *(f"BLEU {name}" for name in sets)]]
    for row in rows:
        speed, first_speed = row.lines_per_second, first.lines_per_second
        cells.append([
            row.name, f"{row.bytes / 1e6:.1f}", f"{row.bytes / first.bytes:.2f}x",
            f"{speed:.1f}" if speed else "-",
            f"{speed / first_speed:.2f}x" if speed and first_speed else "-",
            *(_format_bleu(row.bleu[name]) if row.bleu else "-" for name in sets),
        ])  # fmt: skip
    return console.align_columns(cells)


def _format_bleu(bleu: float) -> str:
    return "undefined" if math.isnan(bleu) else f"{bleu:.2f}"
