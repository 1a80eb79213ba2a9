"""Export: write a model for another program, and verify that it is the same model.

A sample is translated and scored with both. A difference beyond the tolerance for its type of
weights is an error, and the export is deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

from mt.checkpoints import bundle, checkpoint
from mt.checkpoints.run_directory import LoadedModel
from mt.config.plugins import Plugin, plugin, plugins, trust_kinds
from mt.config.section import Variant
from mt.config.validation import validate_section
from mt.config.yaml_reader import Location
from mt.decoding.text_translator import TextTranslator
from mt.decoding.translate import open_engine
from mt.decoding.types import Engine, EngineOptions
from mt.errors import ConfigError
from mt.evaluation import compare, evaluate, scoring
from mt.evaluation.compare import ModelRow
from mt.export.verify import (
    TOLERANCES,
    Sample,
    compare_with_original,
    measure_engine,
    pick_sample,
)
from mt.runtime import files, model_files, text_files
from mt.runtime.model_files import JsonObject


class Metrics(JsonObject):
    """What a line of `metrics.jsonl` may have, of what is read here."""

    step: int | None = None
    valid_bleu: float | None = None
    valid_chrf: float | None = None


@dataclass(frozen=True)
class ExportResult:
    """A verified export."""

    path: Path
    rows: tuple[ModelRow, ModelRow]
    """The model, then its export."""
    sample: Sample
    worst: float | None
    """Largest relative difference of a forced score; None when nothing opens the export."""
    ties: tuple[int, ...]
    """Lines of the sample, counted from 1, whose greedy output differs by a tie."""


def export_model(
    path: Path, kind: str, out: Path | None = None, settings: dict[str, str] | None = None,
    choice: str | None = None, sample: Path | None = None, force: bool = False,
) -> ExportResult:  # fmt: skip
    """Export a run, a checkpoint in one, or a bundle, and compare the export with it.

    `out` is by default beside the run, named after it; `force` replaces an earlier export there.
    Both translate the lines of `sample`, by default the first test set that can be read.

    Raises:
        ConfigError: the target cannot express the model, or `out` exists.
        ModelError: the export differs from the model; nothing is left behind.
    """
    trust_kinds([kind])
    config = _exporter_config(kind, settings or {})
    opened = bundle.open_loaded_model(path, choice)
    exporter = plugin("exporters", kind)
    exporter.check(opened, config)
    out = out or _default_path(opened.run, config)
    _refuse_existing(out, force)
    lines = pick_sample(opened, sample)
    if not opened.scores:
        opened = replace(opened, scores=_known_scores(opened))
    # On the CPU in the precision of the weights, so that only the export differs.
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
            worst, ties = compare_with_original(ours, theirs, opened, lines, tolerance)
        weights = opened.folder / checkpoint.MODEL if opened.folder.is_dir() else opened.folder
        rows = (
            measure_engine("mt", weights, ours, opened.recipe, lines),
            measure_engine(_export_name(config), hidden, theirs, opened.recipe, lines),
        )
    return ExportResult(out, rows, lines, worst, ties)


def _open_export(exporter: Any, path: Path, opened: LoadedModel, config: Variant) -> Engine | None:
    """An engine on the export; None when nothing opens it."""
    if hasattr(exporter, "open"):
        return cast(Engine, exporter.open(path, opened))
    if not any(plugin("engines", kind).accepts(path) for kind in plugins("engines")):
        return None
    precision = "fp32" if _weight_type(config) == "float32" else None  # None: that of the weights
    return open_engine(path, EngineOptions(device="cpu", precision=precision))


def _exporter_config(kind: str, settings: dict[str, str]) -> Variant:
    places: dict[Location, str] = {
        ("export", key): f"--{key} {value}" for key, value in settings.items()
    }
    places["export",] = f"--to {kind}"
    schema = Annotated[Variant, Plugin("exporters")]
    config = validate_section("export", schema, {"kind": kind, **settings}, places, "--to")
    return cast(Variant, config)


def _weight_type(config: Variant) -> str:
    return str(getattr(config, "quantization", "float32"))


def _export_name(config: Variant) -> str:
    weights = _weight_type(config)
    return config.kind if weights == "float32" else f"{config.kind}-{weights}"


def _default_path(run: Path, config: Variant) -> Path:
    """RUN.mt for a bundle, else RUN-KIND, beside the run."""
    name = run.resolve().name.removesuffix(".mt")
    suffix = ".mt" if config.kind == "bundle" else f"-{_export_name(config)}"
    return run.resolve().parent / f"{name}{suffix}"


def _refuse_existing(out: Path, force: bool) -> None:
    """Raise when `out` exists, unless it is an export and `force` is set."""
    if not out.exists() and not out.is_symlink():
        return
    if not force:
        advice = "choose another with -o, or replace it with --force"
        raise ConfigError("EXPORT-EXISTS", out, "there is something already", advice)
    if out.is_symlink() or (out.is_dir() and not (out / "config.json").is_file()):
        what = "is no earlier export, and so is not replaced"
        raise ConfigError("EXPORT-EXISTS", out, what, "choose another with -o")


def _known_scores(opened: LoadedModel) -> dict[str, Any]:
    """Scores of the validation, and of translations that `mt eval` kept if they are newer."""
    scores = validation_scores(opened)
    weights = opened.folder / checkpoint.MODEL
    for name, config in opened.recipe.data.test.items():
        parts = [evaluate.hypothesis_path(opened.run, name, part) for part in ("", ".reference")]
        if not all(part.is_file() for part in (*parts, weights)):
            continue
        if min(part.stat().st_mtime for part in parts) < weights.stat().st_mtime:
            continue
        texts, references = (list(text_files.read_lines(part)) for part in parts)
        scores[name] = scoring.score_translations(
            texts, [references], config.direction.target, opened.recipe.evaluation
        )
    return scores


def validation_scores(opened: LoadedModel) -> dict[str, Any]:
    """BLEU and chrF2 that training logged at this step."""
    log = opened.run / "metrics.jsonl"
    rows = model_files.read_json_lines(log, Metrics) if log.exists() else ()
    for row in reversed(list(rows)):
        if row.get("step") == opened.step and "valid_bleu" in row:
            return {
                "validation": {
                    name: {"score": round(row[key], 2), "signature": "while training"}
                    for name, key in (("BLEU", "valid_bleu"), ("chrF2", "valid_chrf"))
                    if row.get(key) is not None
                }
            }
    return {}


def format_result(result: ExportResult) -> Iterator[str]:
    """The result as lines."""
    yield from compare.format_table(result.rows)
    count = len(result.sample.lines)
    yield f"sample: {count} lines of {result.sample.name}, by the search of the recipe"
    if result.worst is None:
        yield "not compared: nothing here opens it"
    else:
        yield f"forced scores: at most {result.worst:.1e} apart"
    if result.ties:
        yield f"output equal but for ties in lines {', '.join(map(str, result.ties))}"
    yield f"written: {result.path}"
