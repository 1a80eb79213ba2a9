"""Models side by side: BLEU on the same test sets, size, and speed measured in turn."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mt.checkpoints import checkpoint, run_directory
from mt.config.recipe import Recipe
from mt.decoding.translate import open_engine
from mt.decoding.types import Engine, EngineOptions
from mt.evaluation import evaluate, metrics
from mt.runtime import console

WARM_UP = 32
"""Lines that are translated first, and not counted."""
ROUNDS = 2
"""How often each translates all lines, in turn with the others; the fastest round counts."""


@dataclass(frozen=True)
class ModelRow:
    """What there is to compare of a model."""

    name: str
    bytes: int
    """Of its weights, on disk."""
    lines_per_second: float
    """Over all test sets, loading left out."""
    bleu: dict[str, float]
    """Of each test set."""


def compare_models(
    models: dict[str, Path], recipe: Recipe, options: EngineOptions | None = None
) -> list[ModelRow]:
    """Translate the test sets of a recipe with each of several models.

    Args:
        models: the path of each, by the name that the table gives it.
        recipe: names the test sets; where it has none, the validation corpus stands in.
        options: what is asked of each engine.
    """
    sets = recipe.data.test or {"valid": recipe.data.valid}
    texts = {name: evaluate.read_test_set(config) for name, config in sets.items()}
    asked = replace(options or EngineOptions(), low_latency=False)
    engines = {name: open_engine(path, asked) for name, path in models.items()}
    first, (some, _) = next(iter(texts.items()))
    seconds = dict.fromkeys(models, float("inf"))
    found: dict[str, dict[str, list[str]]] = {}
    with console.print_lines_once():
        for engine in engines.values():
            _translate(engine, asked, some[:WARM_UP], sets[first].direction.target)
        for _ in range(ROUNDS):
            for name, engine in engines.items():
                began = time.perf_counter()
                found[name] = {
                    each: _translate(engine, asked, lines, sets[each].direction.target)
                    for each, (lines, _) in texts.items()
                }
                seconds[name] = min(seconds[name], time.perf_counter() - began)
    count = sum(len(lines) for lines, _ in texts.values())
    rows = []
    for name, path in models.items():
        bleu = {
            each: metrics.score_translations(
                found[name][each], texts[each][1], config.direction.target, recipe.evaluation
            )["BLEU"]["score"]
            for each, config in sets.items()
        }
        rows.append(ModelRow(name, weight_bytes(path), count / seconds[name], bleu))
    return rows


def _translate(engine: Engine, options: EngineOptions, lines: list[str], target: str) -> list[str]:
    told = replace(options, target_language=target)
    return [each.text for each in engine.translate(lines, told)]


def weight_bytes(path: Path) -> int:
    """Bytes of the weights that translate."""
    if run_directory.is_run(path):
        return (run_directory.open_run(path).folder / checkpoint.MODEL).stat().st_size
    if path.is_file():
        return path.stat().st_size
    return sum(part.stat().st_size for part in path.iterdir() if part.is_file())


def format_table(rows: Sequence[ModelRow]) -> Iterator[str]:
    """The rows as lines, speed and size also as shares of the first."""
    width = max(8, *(len(row.name) for row in rows))
    sets = list(rows[0].bleu)
    widths = [max(8, len(name) + 2) for name in sets]
    titles = "".join(f"{name:>{w}}" for name, w in zip(sets, widths, strict=True))
    yield f"{'':{width}} {'MB':>8} {'size':>6} {'lines/s':>9} {'speed':>6}{titles}  (BLEU)"
    first = rows[0]
    for row in rows:
        size, speed = row.bytes / first.bytes, row.lines_per_second / first.lines_per_second
        scores = "".join(f"{row.bleu[n]:>{w}.2f}" for n, w in zip(sets, widths, strict=True))
        yield (
            f"{row.name:{width}} {row.bytes / 1e6:8.1f} {size:5.2f}x {row.lines_per_second:9.1f} "
            f"{speed:5.2f}x{scores}"
        )
