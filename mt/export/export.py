"""Export: a model written for another program, and proved to be the same model.

A sample is translated and scored with both; what differs by more than the tolerance of its kind
of weights is told and leaves nothing behind.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

from mt.checkpoints import bundle, checkpoint
from mt.checkpoints.run_directory import LoadedModel
from mt.config.plugins import Plugin, plugin, plugins
from mt.config.section import Section, Variant
from mt.config.validation import validate
from mt.config.yaml_reader import Document, Location
from mt.decoding.text_translator import TextTranslator
from mt.decoding.translate import open_engine
from mt.decoding.types import Engine, EngineOptions
from mt.errors import ConfigError
from mt.evaluation import evaluate, metrics
from mt.export.verify import (
    TOLERANCES,
    ExportRow,
    Sample,
    compare_with_original,
    measure_engine,
    pick_sample,
)
from mt.runtime import files

"""By the type of the weights."""


@dataclass(frozen=True)
class ExportResult:
    """An export that holds."""

    path: Path
    rows: tuple[ExportRow, ExportRow]
    """The model, then its export."""
    sample: Sample
    worst: float | None
    """Largest relative difference of a forced score; None when nothing opens the export."""
    ties: tuple[int, ...]
    """Lines of the sample, counted from 1, whose greedy output differs by a tie."""


class _Settings(Section):
    """Wraps the settings of an exporter, so that problems are told with their keys."""

    export: Annotated[Variant, Plugin("exporters")]


def export_model(
    path: Path, kind: str, out: Path | None = None, settings: dict[str, str] | None = None,
    choice: str | None = None, sample: Path | None = None, force: bool = False,
) -> ExportResult:  # fmt: skip
    """Export a model and compare.

    Args:
        path: a run, a checkpoint folder in one, or a bundle.
        kind: which exporter.
        out: what to write; by default beside the run, called after it.
        settings: of the exporter.
        choice: which checkpoint of a run.
        sample: lines to compare with; by default the recipe's first test set that can be read.
        force: whether an earlier export of that name is replaced.

    Raises:
        ConfigError: the target cannot express the model, or `out` is there.
        ModelError: the export differs from the model; nothing is left behind.
    """
    config = _exporter_config(kind, settings or {})
    opened = bundle.open_loaded_model(path, choice)
    exporter = plugin("exporters", kind)
    exporter.check(opened, config)
    out = out or _default_path(opened.run, config)
    _refuse_existing(out, force)
    tried = pick_sample(opened, sample)
    if not opened.scores:
        opened = replace(opened, scores=_known_scores(opened))
    # The very processor, and the precision of the weights: what differs is the export.
    options = EngineOptions(checkpoint=choice, device="cpu", precision="fp32")
    ours = cast(TextTranslator, open_engine(path, options))
    files.make_folder(out.parent)
    with files.staged(out, replace=force) as hidden:
        exporter.export(opened.model().eval(), opened, hidden, config)
        theirs = _open_export(exporter, hidden, opened, config)
        worst: float | None = None
        ties: tuple[int, ...] = ()
        if theirs is not None:
            tolerance = TOLERANCES[_weight_type(config)]
            worst, ties = compare_with_original(ours, theirs, opened, tried, tolerance)
        weights = opened.folder / checkpoint.MODEL if opened.folder.is_dir() else opened.folder
        rows = (
            measure_engine("mt", weights, ours, opened.recipe, tried),
            measure_engine(_export_name(config), hidden, theirs, opened.recipe, tried),
        )
    return ExportResult(out, rows, tried, worst, ties)


def _open_export(exporter: Any, path: Path, opened: LoadedModel, config: Variant) -> Engine | None:
    """What was exported, to be tried; None when nothing opens it."""
    if hasattr(exporter, "open"):
        tried: Engine = exporter.open(path, opened)
        return tried
    kinds = [plugin("engines", kind) for kind in plugins("engines")]
    known = any(kind.accepts(path) for kind in kinds)
    precision = "fp32" if _weight_type(config) == "float32" else None  # that of the weights
    options = EngineOptions(device="cpu", precision=precision)
    return open_engine(path, options) if known else None


def _exporter_config(kind: str, settings: dict[str, str]) -> Variant:
    said: dict[Location, str] = {
        ("export", key): f"--{key} {value}" for key, value in settings.items()
    }
    said["export",] = f"--to {kind}"
    document = Document({"export": {"kind": kind, **settings}}, said, name="--to")
    return validate(_Settings, document).export


def _export_name(config: Variant) -> str:
    kind, weights = config.kind, _weight_type(config)
    return kind if weights == "float32" else f"{kind}-{weights}"


def _weight_type(config: Variant) -> str:
    """The type of the weights."""
    return str(getattr(config, "quantization", "float32"))


def _default_path(run: Path, config: Variant) -> Path:
    """Where an export goes that nobody has named."""
    name = run.resolve().name.removesuffix(".mt")
    suffix = ".mt" if config.kind == "bundle" else f"-{_export_name(config)}"
    return run.resolve().parent / f"{name}{suffix}"


def _refuse_existing(out: Path, force: bool) -> None:
    """Never delete what is no export."""
    if not out.exists() and not out.is_symlink():
        return
    if not force:
        advice = "choose another with -o, or replace it with --force"
        raise ConfigError("EXPORT-EXISTS", out, "there is something already", advice)
    if out.is_symlink() or (out.is_dir() and not (out / "config.json").is_file()):
        what = "is no earlier export, and so is not replaced"
        raise ConfigError("EXPORT-EXISTS", out, what, "choose another with -o")


def _known_scores(opened: LoadedModel) -> dict[str, Any]:
    """Those of its validation, and of the translations that `mt eval` kept if they are newer."""
    found = _validation_scores(opened)
    for name, config in opened.recipe.data.test.items():
        parts = [evaluate.hypothesis_path(opened.run, name, part) for part in ("", ".reference")]
        weights = opened.folder / checkpoint.MODEL
        if not all(part.is_file() for part in parts) or not weights.is_file():
            continue
        if min(part.stat().st_mtime for part in parts) < weights.stat().st_mtime:
            continue
        texts, references = (list(files.read_lines(part)) for part in parts)
        language = config.direction.target
        found[name] = metrics.score_translations(
            texts, [references], language, opened.recipe.evaluation
        )
    return found


def _validation_scores(opened: LoadedModel) -> dict[str, Any]:
    """What training said of this very step."""
    log = opened.run / "metrics.jsonl"
    rows = [json.loads(line) for line in files.read_lines(log)] if log.is_file() else []
    for row in reversed(rows):
        if row.get("step") == opened.step and "valid_bleu" in row:
            named = {"BLEU": "valid_bleu", "chrF2": "valid_chrf"}
            how = "while training"
            told = {k: {"score": round(row[v], 2), "signature": how} for k, v in named.items()}
            return {"validation": told}
    return {}


def format_result(done: ExportResult) -> Iterator[str]:
    """What was found, as lines."""
    yield f"{'':24} {'MB':>8} {'lines/s':>9} {'BLEU':>6}"
    for row in done.rows:
        speed = "-" if row.lines_per_second is None else f"{row.lines_per_second:.1f}"
        bleu = "-" if row.bleu is None else f"{row.bleu:.2f}"
        yield f"{row.name:24} {row.bytes / 1e6:8.1f} {speed:>9} {bleu:>6}"
    count = len(done.sample.lines)
    yield f"sample: {count} lines of {done.sample.name}, by the search of the recipe"
    if done.worst is None:
        yield "not compared: nothing here opens it"
    else:
        yield f"forced scores: at most {done.worst:.1e} apart"
    if done.ties:
        yield f"greedy output equal but for ties in lines {', '.join(map(str, done.ties))}"
    yield f"written: {done.path}"
