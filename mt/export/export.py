"""Export: a model written for another program, and proved to be the same model.

A sample is translated and scored with both; what differs by more than the tolerance of its kind
of weights is told and leaves nothing behind.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, cast

from mt.checkpoints import bundle, checkpoint
from mt.checkpoints.checkpoint import Opened
from mt.config.recipe import Recipe
from mt.config.yaml_reader import (
    Document,
    Location,
    Plugin,
    Section,
    Variant,
    plugin,
    plugins,
    validate,
)
from mt.decoding.batching import is_blank
from mt.decoding.text_translator import TextEngine
from mt.decoding.translate import open_engine
from mt.errors import ConfigError, ModelError, MtError
from mt.evaluation import evaluate
from mt.interfaces import END, Engine, EngineOptions, Pair
from mt.runtime import files

SAMPLE = 200
"""Most lines that are translated with both."""
TIE = 1e-3
"""Two tokens of which one may stand for the other: their log-probabilities differ by less."""
LOSS = 0.1
"""Log-probability a token by which the model may find other translations worse than its own."""
GREEDY = EngineOptions(search={"kind": "greedy"})


@dataclass(frozen=True)
class Tolerance:
    """How much an export may differ from its model."""

    score: float
    """Of forced scores, as a share: of each line where output must be equal, else of the sum."""
    chrf: float | None = None
    """Least chrF2 of its greedy translations against ours, unless the model finds them about as
    probable as its own; None: they must be equal."""


TOLERANCES = {"float32": Tolerance(1e-4)}
TOLERANCES |= dict.fromkeys(("float16", "bfloat16", "int16"), Tolerance(0.02, 90))
TOLERANCES |= dict.fromkeys(
    ("int8", "int8_float32", "int8_float16", "int8_bfloat16"), Tolerance(0.05, 75)
)
"""By the type of the weights."""


@dataclass(frozen=True)
class Sample:
    """Lines to try an export with."""

    name: str
    lines: list[str]
    references: list[str] | None
    language: str
    """Of the references."""


@dataclass(frozen=True)
class Row:
    """What there is to compare of a model and its export."""

    name: str
    bytes: int
    """On disk."""
    lines_per_second: float | None
    """Of the sample, by the search of the recipe."""
    bleu: float | None
    """By the search of the recipe; None without references."""


@dataclass(frozen=True)
class Done:
    """An export that holds."""

    path: Path
    rows: tuple[Row, Row]
    """The model, then its export."""
    sample: Sample
    worst: float | None
    """Largest relative difference of a forced score; None when nothing opens the export."""
    ties: tuple[int, ...]
    """Lines of the sample, counted from 1, whose greedy output differs by a tie."""


class _Settings(Section):
    """Wraps the settings of an exporter, so that problems are told with their keys."""

    export: Annotated[Variant, Plugin("exporters")]


def export(
    path: Path, kind: str, out: Path | None = None, settings: dict[str, str] | None = None,
    choice: str | None = None, sample: Path | None = None, force: bool = False,
) -> Done:  # fmt: skip
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
    config = _config(kind, settings or {})
    opened = bundle.open_model(path, choice)
    exporter = plugin("exporters", kind)
    exporter.check(opened, config)
    out = out or _beside(opened.run, config)
    _refuse_existing(out, force)
    tried = _sample(opened, sample)
    if not opened.scores:
        opened = replace(opened, scores=_scores(opened))
    # The very processor, and the precision of the weights: what differs is the export.
    options = EngineOptions(checkpoint=choice, device="cpu", precision="fp32")
    ours = cast(TextEngine, open_engine(path, options))
    with files.new_path(out, replace=force) as hidden:
        exporter.export(opened.model().eval(), opened, hidden, config)
        theirs = _open(exporter, hidden, opened, config)
        worst: float | None = None
        ties: tuple[int, ...] = ()
        if theirs is not None:
            tolerance = TOLERANCES[_type(config)]
            worst, ties = _compare(ours, theirs, opened, tried, tolerance)
        weights = opened.folder / checkpoint.MODEL if opened.folder.is_dir() else opened.folder
        rows = (
            _measure("mt", weights, ours, opened.recipe, tried),
            _measure(_name(config), hidden, theirs, opened.recipe, tried),
        )
    return Done(out, rows, tried, worst, ties)


def _open(exporter: Any, path: Path, opened: Opened, config: Variant) -> Engine | None:
    """What was exported, to be tried; None when nothing opens it."""
    if hasattr(exporter, "open"):
        tried: Engine = exporter.open(path, opened)
        return tried
    kinds = [plugin("engines", kind) for kind in plugins("engines")]
    known = any(kind.accepts(path) for kind in kinds)
    precision = "fp32" if _type(config) == "float32" else None  # that of the weights
    options = EngineOptions(device="cpu", precision=precision)
    return open_engine(path, options) if known else None


def _config(kind: str, settings: dict[str, str]) -> Variant:
    said: dict[Location, str] = {
        ("export", key): f"--{key} {value}" for key, value in settings.items()
    }
    said["export",] = f"--to {kind}"
    document = Document({"export": {"kind": kind, **settings}}, said, name="--to")
    return validate(_Settings, document).export


def _name(config: Variant) -> str:
    kind, weights = config.kind, _type(config)
    return kind if weights == "float32" else f"{kind}-{weights}"


def _type(config: Variant) -> str:
    """The type of the weights."""
    return str(getattr(config, "quantization", "float32"))


def _beside(run: Path, config: Variant) -> Path:
    """Where an export goes that nobody has named."""
    name = run.resolve().name.removesuffix(".mt")
    suffix = ".mt" if config.kind == "bundle" else f"-{_name(config)}"
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


# -------------------------------------------------------------------------------- sample


def _sample(opened: Opened, file: Path | None) -> Sample:
    """The lines to compare with, those that fit the model whole.

    Raises:
        ConfigError: none of the recipe's test sets, nor its validation corpus, can be read here.
    """
    data, target = opened.recipe.data, opened.recipe.direction.target
    if file is not None:
        read = [(line, "") for line in islice(files.lines(file), SAMPLE)]
        if lines := [source for source, _ in _fitting(read, opened)]:
            return Sample(file.name, lines, None, target)
        what = "there is no text in it that fits the model"
        raise ConfigError("EXPORT-SAMPLE", file, what, "give another file")
    for name, config in [*data.test.items(), ("the validation corpus", data.valid)]:
        try:
            pairs = list(islice(plugin("sources", config.kind).read(config), SAMPLE))
        except (MtError, ImportError):
            continue
        read = [(pair.source, pair.target) for pair in pairs if pair.source and pair.target]
        if both := _fitting(read, opened):
            sources, targets = zip(*both, strict=True)
            return Sample(name, list(sources), list(targets), config.direction.target)
    what = "no test set of the recipe, nor its validation corpus, can be read here"
    raise ConfigError("EXPORT-SAMPLE", "--sample", what, "give some lines with --sample FILE")


def _fitting(pairs: Sequence[tuple[str, str]], opened: Opened) -> list[tuple[str, str]]:
    """Those with text that the model need not cut, as other programs do not."""
    sides = zip(*pairs, strict=True) if pairs else ([], [])
    encoders = opened.vocabulary.encode_source, opened.vocabulary.encode_target
    ids = [encode(list(side)) for encode, side in zip(encoders, sides, strict=True)]
    lengths = [max(map(len, both)) for both in zip(*ids, strict=True)]
    room = opened.recipe.data.max_length
    found = zip(pairs, lengths, strict=True)
    return [pair for pair, length in found if length < room and not is_blank(pair[0])]


def _scores(opened: Opened) -> dict[str, Any]:
    """Those of its validation, and of the translations that `mt eval` kept if they are newer."""
    found = _validation(opened)
    for name, config in opened.recipe.data.test.items():
        parts = [evaluate.kept(opened.run, name, part) for part in ("", ".reference")]
        weights = opened.folder / checkpoint.MODEL
        if not all(part.is_file() for part in parts) or not weights.is_file():
            continue
        if min(part.stat().st_mtime for part in parts) < weights.stat().st_mtime:
            continue
        texts, references = (list(files.lines(part)) for part in parts)
        language = config.direction.target
        found[name] = evaluate.score(texts, [references], language, opened.recipe.evaluation)
    return found


def _validation(opened: Opened) -> dict[str, Any]:
    """What training said of this very step."""
    log = opened.run / "metrics.jsonl"
    rows = [json.loads(line) for line in files.lines(log)] if log.is_file() else []
    for row in reversed(rows):
        if row.get("step") == opened.step and "valid_bleu" in row:
            named = {"BLEU": "valid_bleu", "chrF2": "valid_chrf"}
            how = "while training"
            told = {k: {"score": round(row[v], 2), "signature": how} for k, v in named.items()}
            return {"validation": told}
    return {}


# ------------------------------------------------------------------------------- compare


def _compare(
    ours: TextEngine, theirs: Engine, opened: Opened, sample: Sample, tolerance: Tolerance
) -> tuple[float, tuple[int, ...]]:
    """The largest difference of forced scores, and the lines that differ by a tie.

    Raises:
        ModelError: the export is not the model.
    """
    asked = replace(GREEDY, target_language=sample.language)
    greedy = [list(engine.translate(sample.lines, asked)) for engine in (ours, theirs)]
    mine, other = ([each.text for each in found] for found in greedy)
    pairs = [
        _pair(a, b, sample) for a, b in zip(sample.lines, sample.references or mine, strict=True)
    ]
    forced = [[each.log_probability for each in engine.score(pairs)] for engine in (ours, theirs)]
    every = [_apart(a, b) for a, b in zip(*forced, strict=True)]
    worst = max(every)
    told = worst if tolerance.chrf is None else _apart(*map(math.fsum, forced))
    if not told <= tolerance.score:  # NaN is no number within it
        line = every.index(worst)
        _differs(f"forced scores by {told:.1e}, at most {tolerance.score:.0e} may be", line, forced)
    if tolerance.chrf is not None:
        _, chrf = evaluate.bleu_and_chrf(other, mine, sample.language, opened.recipe.evaluation)
        if chrf < tolerance.chrf and _less_probable(ours, sample, mine, other) > LOSS:
            what = f"its greedy translations have chrF2 {chrf:.1f} against those of mt, "
            _differs(f"{what}at least {tolerance.chrf:g} is wanted", 0, [mine, other])
        return worst, ()
    # By their tokens: bytes that are no character may be shown in several ways.
    tokens = [(a.tokens, b.tokens) for a, b in zip(*greedy, strict=True)]
    differing = [line for line, (a, b) in enumerate(tokens) if a != b]
    for line in differing:
        if not _tied(ours, sample.lines[line], *tokens[line], sample.language):
            _differs("its greedy translations, and not by a tie", line, [mine, other])
    return worst, tuple(line + 1 for line in differing)


def _less_probable(
    engine: Engine, sample: Sample, mine: Sequence[str], other: Sequence[str]
) -> float:
    """By how much less a token the model finds other translations probable than its own.

    Of an untrained model any translation is as good as its own, however different.
    """
    means = []
    for texts in (mine, other):
        pairs = [_pair(a, b, sample) for a, b in zip(sample.lines, texts, strict=True)]
        scores = list(engine.score(pairs))
        total = math.fsum(score.log_probability for score in scores)
        means.append(total / sum(score.tokens for score in scores))
    return means[0] - means[1]


def _texts(engine: Engine, lines: Sequence[str], options: EngineOptions) -> list[str]:
    return [translation.text for translation in engine.translate(lines, options)]


def _pair(source: str, target: str, sample: Sample) -> Pair:
    return Pair(source, target, "", sample.language, sample.name)


def _apart(a: float, b: float) -> float:
    return abs(a - b) / max(abs(a), 1e-9)


def _tied(
    ours: TextEngine, line: str, one: Sequence[str], other: Sequence[str],
    language: str | None = None,
) -> bool:  # fmt: skip
    """Whether the first token in which two translations of a line differ could be either."""
    vocabulary = ours.vocabulary
    names = vocabulary.pieces_target(range(vocabulary.target_size))
    ids = {name: i for i, name in enumerate(names)}
    (source,) = vocabulary.encode_source([line])
    source = [*vocabulary.front(ours.target(language)), *source]
    both = [[*(ids[name] for name in tokens), END] for tokens in (one, other)]
    place = next(i for i, (a, b) in enumerate(zip(*both, strict=False)) if a != b)
    gains = ours.searcher.force([([*source, END], each) for each in both])
    return abs(gains[0][place] - gains[1][place]) < TIE


def _differs(what: str, line: int, values: Sequence[Sequence[Any]]) -> None:
    mine, other = (each[line] for each in values)
    advice = "the versions of both programs do not go together; please report it"
    told = f"it differs from the model: {what}; line {line + 1} of the sample: {mine} / {other}"
    raise ModelError("EXPORT-DIFFERS", "the export", told, advice)


def _measure(
    name: str, path: Path, engine: Engine | None, recipe: Recipe, sample: Sample
) -> Row:  # fmt: skip
    """Size, speed and BLEU."""
    parts = [path] if path.is_file() else [part for part in path.rglob("*") if part.is_file()]
    size = sum(part.stat().st_size for part in parts)
    if engine is None:
        return Row(name, size, None, None)
    start = time.perf_counter()
    texts = _by_recipe(engine, sample)
    seconds = time.perf_counter() - start
    bleu = None
    if sample.references is not None:
        bleu, _ = evaluate.bleu_and_chrf(
            texts, sample.references, sample.language, recipe.evaluation
        )
    return Row(name, size, len(texts) / seconds, bleu)


def _by_recipe(engine: Engine, sample: Sample) -> list[str]:
    asked = EngineOptions(target_language=sample.language)
    try:
        return _texts(engine, sample.lines, asked)
    except ConfigError:  # a search that the other program has not
        return _texts(engine, sample.lines, replace(asked, search=GREEDY.search))


def table(done: Done) -> Iterator[str]:
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
