"""Trains recipes with `mt.train.train`, and measures the models.

A measurement is a function from JSON values to a JSON value (see `claims.store`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, cast

from bench.updates import Updates

from claims.recipes import Recipe as Values
from claims.recipes import changed
from mt.checkpoints import bundle, run_directory
from mt.cli import main
from mt.config.plugins import plugin
from mt.config.recipe import Recipe
from mt.config.validation import validate
from mt.config.yaml_reader import parse
from mt.data.cache import PreparedData
from mt.data.pairs import Pair
from mt.data.prepare import prepare
from mt.decoding.translate import open_engine
from mt.decoding.types import Engine, EngineOptions
from mt.evaluation import evaluate
from mt.runtime import files
from mt.runtime.device import Precision
from mt.training.loop import train


def recipe_of(values: Values) -> Recipe:
    """Return the recipe of plain values.

    Raises:
        ConfigError: it is wrong.
    """
    return validate(Recipe, parse(json.dumps(values), "recipe"))


FINISHED = "finished"
"""A file in the run directory of a recipe that is trained to its end."""
Uses = dict[str, dict[str, Any]] | None
"""By dotted key of a recipe the recipe whose run belongs there, such as
`training.initialise_from`; it is trained first."""


def run_of(folder: Path, values: Values, uses: Uses = None) -> Path:
    """Return the run directory of a recipe; equal recipes share one."""
    text = json.dumps([values, uses], sort_keys=True)
    return folder / "runs" / hashlib.sha256(text.encode()).hexdigest()[:16]


def trained_run(folder: Path, values: Values, uses: Uses = None) -> Path:
    """Train a recipe to its end, from its last checkpoint on, and return its run directory."""
    run = run_of(folder, values, uses)
    if (run / FINISHED).exists():  # train() would find out, too, but locks the run
        return run
    others = {
        key: str(trained_run(folder, other).absolute()) for key, other in (uses or {}).items()
    }
    train(recipe_of(changed(values, others)), run)
    files.write_file(run / FINISHED, "")
    return run


def command(*arguments: object) -> None:
    """Run an `mt` command in this process.

    Raises:
        RuntimeError: it failed.
    """
    with contextlib.redirect_stdout(sys.stderr):
        code = main.run([str(argument) for argument in arguments])
    if code:
        raise RuntimeError(f"mt {' '.join(map(str, arguments))}: exit code {code}")


def engine_of(run: Path, name: str | None = None) -> Engine:
    """Open a run's best checkpoint, or the named one, for translating in fp32 on one thread."""
    options = EngineOptions(checkpoint=name, device="cpu", precision="fp32", threads=1)
    return open_engine(run, options)


def build_updates(values: Values, precision: Precision = "fp32") -> tuple[Updates, PreparedData]:
    """Return the updates of an untrained recipe, and its prepared data."""
    recipe = recipe_of(values)
    prepared = prepare(recipe, lambda line: None)
    return Updates(recipe, prepared.vocabulary, precision), prepared


# --------------------------------------------------------------------------- measurements


def trained(folder: Path, recipe: Values, uses: Uses = None) -> dict[str, Any]:
    """Train a recipe; measure its curves, its best validation, and its test BLEU."""
    run = trained_run(folder, recipe, uses)
    return {**curves(run), "test": tests_of(run)}


def gap(folder: Path, recipe: Values, pairs: int, uses: Uses = None) -> dict[str, float]:
    """Measure the loss on training and on validation pairs, at the last and the best checkpoint.

    In nats a token, forced, without smoothing and dropout.
    """
    run = trained_run(folder, recipe, uses)
    data = recipe_of(recipe).data
    seen, unseen = (
        list(islice(plugin("sources", source.kind).read(source), pairs))
        for source in (data.train[0], data.valid)
    )
    found = {}
    for name in ("last", "best"):
        engine = engine_of(run, name)
        for part, given in (("train", seen), ("valid", unseen)):
            found[f"{name}_{part}"] = loss(engine, given)
    return found


def curves(run: Path) -> dict[str, Any]:
    """Return the metrics of a run: losses and validations by step, speed, size."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    reports = [line for line in lines if "target_tokens_per_second" in line]
    validations = [line for line in lines if "valid_loss" in line]
    best = min(validations, key=lambda line: line["valid_loss"] or math.inf)
    model = run_directory.open_run(run).model()
    return {
        "steps": [line["step"] for line in reports],
        "losses": [line["loss"] for line in reports],
        "target_tokens": reports[-1]["total_target_tokens"],
        "tokens_per_second": median(line["target_tokens_per_second"] for line in reports),
        "validated": [line["step"] for line in validations],
        "valid_losses": [line["valid_loss"] for line in validations],
        "valid_loss": best["valid_loss"],
        "skipped": reports[-1]["skipped"],
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def tests_of(run: Path) -> dict[str, float]:
    """Return the BLEU by test set of the recipe."""
    if not bundle.read_any_recipe(run).data.test:
        return {}
    found = evaluate.evaluate(run, engine_of(run))
    return {name: each.scores["BLEU"]["score"] for name, each in found.items()}


def loss(engine: Engine, pairs: Iterable[Pair]) -> float:
    """Return the nats a token of the targets, forced."""
    scores = list(engine.score(pairs))
    return -sum(s.log_probability for s in scores) / sum(s.tokens for s in scores)


def texts(pairs: Iterable[Pair]) -> tuple[list[str], list[str]]:
    """Return sources and targets."""
    sides = [(cast(str, pair.source), cast(str, pair.target)) for pair in pairs]
    return [source for source, _ in sides], [target for _, target in sides]
