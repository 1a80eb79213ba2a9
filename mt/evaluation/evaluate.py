"""Translate test sets, keep the translations and score them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from mt.checkpoints import run_directory
from mt.checkpoints.bundle import read_any_recipe
from mt.checkpoints.run_directory import run_of
from mt.config.plugins import dotted_kinds, plugin, plugins, trust_kinds
from mt.config.recipe import Recipe
from mt.config.schema import EvaluationConfig, Languages, SourceConfig
from mt.config.validation import validate_section
from mt.config.yaml_reader import Document, Location, override
from mt.data.text import one_line
from mt.decoding.quality import find_calibration
from mt.decoding.translate import open_engine
from mt.decoding.types import Engine, EngineOptions, Translation
from mt.errors import ConfigError, DataError, MachineError, ModelError
from mt.evaluation.buckets import (
    Bucket,
    count_training_words,
    group_by_length,
    group_by_rarity,
)
from mt.evaluation.comparison import compare_scores
from mt.evaluation.confidence import (
    ExpectedChrf,
    LineConfidence,
    describe_expected,
    rate_lines,
    write_confidences,
)
from mt.evaluation.scoring import (
    Scores,
    as_result,
    make_metrics,
    score_all,
    sentence_chrf,
)
from mt.runtime import console, files, text_files

PARTS = (".source", ".reference", "")
"""Ends of the names of a test set's files: source, reference and translation."""
Texts = tuple[list[str], list[list[str]]]
"""Source lines, and for each reference its lines."""


@dataclass(frozen=True)
class TestSet:
    """A text with its translations by people."""

    sources: list[str]
    references: list[list[str]]
    """The lines of each."""
    direction: Languages


@dataclass(frozen=True)
class EvaluatedSet:
    """What was found on a test set."""

    scores: Scores
    rows: list[tuple[str, ...]]
    """Of source, first reference and translation, one line each."""
    expected: ExpectedChrf | None
    """None where the model has no calibration."""


@dataclass(frozen=True)
class OtherSystem:
    """What a system is compared with: another model, or a file of translations."""

    path: Path
    engine: Engine | None
    lines: list[str] = field(default_factory=list)
    """The translations, where there is no model."""

    def translate(self, test_set: TestSet, options: EngineOptions) -> list[str]:
        """Return its translations of a test set."""
        if self.engine is None:
            return self.lines
        target = test_set.direction.target
        return translate_texts(self.engine, _own(options), test_set.sources, target)


def evaluate(
    path: Path, engine: Engine, names: Iterable[str] = (), source: Path | None = None,
    references: Sequence[Path] = (), options: EngineOptions | None = None,
    settings: EvaluationConfig | None = None, baselines: Sequence[Path] = (),
) -> dict[str, EvaluatedSet]:  # fmt: skip
    """Translate test sets and score the translations.

    They are kept in `hypotheses_folder`; where that cannot be written there is one warning.

    Args:
        path: what the engine has opened: a run, a checkpoint, a bundle or an exported folder.
        names: test sets of the recipe; by default all.
        source: a file to translate instead.
        references: its translations, one file a reference.
        options: by default those that the engine was opened with. Their language is that of the
            file; a test set has its own.
        settings: what is computed and how; by default as the recipe says, see `read_settings`.
        baselines: models, or files of translations, to compare with.

    Returns:
        What was found, by the names of the test sets.

    Raises:
        ConfigError: there is no such test set, or source and references are not given together.
        DataError: source and references differ in their number of lines.
    """
    recipe, evaluation = read_any_recipe(path), settings or read_settings(path)
    options = options or getattr(engine, "options", None) or EngineOptions()
    given = _read_files(source, references, recipe, options.target_language)
    sets = given or _read_test_sets(recipe.data.test, names, path)
    opened = [_open_baseline(each, options, sets) for each in baselines]
    made = {  # reports a missing tokenizer before the work
        target: make_metrics(target, evaluation)
        for target in {each.direction.target for each in sets.values()}
    }
    buckets = _group_lines(sets, recipe) if opened else {}
    calibration = find_calibration(path, options.checkpoint)
    own = replace(options, token_scores=calibration is not None)
    result, can_keep = {}, True
    for name, each in sets.items():
        lines, targets, ready = each.sources, each.references, made[each.direction.target]
        translations = translate_fully(engine, own, lines, each.direction.target)
        outputs = [translation.text for translation in translations]
        sure = rate_lines(calibration, translations)
        rows = [tuple(map(one_line, row)) for row in zip(lines, targets[0], outputs, strict=True)]
        can_keep = can_keep and _keep_translations(path, name, rows, sure)
        expected = sure and describe_expected(sure, sentence_chrf(outputs, *targets))
        found = score_all(ready, lines, outputs, targets)
        scores = {key: as_result(value) for key, value in found.items()}
        if opened:
            others = {str(one.path): one.translate(each, options) for one in opened}
            scores = compare_scores(
                evaluation, ready, found, (lines, outputs, targets), others, buckets[name]
            )
        result[name] = EvaluatedSet(scores, rows, expected or None)
    return result


def read_settings(
    path: Path, metrics: Sequence[str] = (), changes: Mapping[str, Any] | None = None
) -> EvaluationConfig:
    """Return the settings of a model, with the metrics that the user names instead, if any.

    Each is a kind, the name of a metric of the recipe, or a section as YAML. `changes` replaces
    other values, for all metrics that leave them open.
    """
    evaluation = read_any_recipe(path).evaluation
    if not metrics and not changes:
        return evaluation
    chosen: Sequence[Any] = evaluation.metrics
    if metrics:
        named = override(Document({}), f"metrics=[{', '.join(metrics)}]").value["metrics"]
        trust_kinds(dotted_kinds(named))
        known = {config.label: config for config in evaluation.metrics}
        chosen = [known.get(each, each) if isinstance(each, str) else each for each in named]
    values = {**evaluation.model_dump(exclude={"metrics"}), "metrics": chosen, **(changes or {})}
    places: dict[Location, str] = {("evaluation", key): f"--{key}" for key in changes or ()}
    settings = validate_section("evaluation", EvaluationConfig, values, places, "--metric")
    return cast(EvaluationConfig, settings)


def _keep_translations(
    path: Path, name: str, rows: Sequence[tuple[str, ...]], sure: Sequence[LineConfidence] | None
) -> bool:
    """Write the files of a test set; warn and return False where that is impossible."""
    try:
        files.make_folder(hypotheses_folder(path))
        files.delete(confidence_path(path, name))  # of other translations
        for number, part in enumerate(PARTS):
            text = "".join(f"{row[number]}\n" for row in rows)  # as the sacrebleu command reads
            files.write_file(hypothesis_path(path, name, part), text)
        if sure is not None:
            write_confidences(confidence_path(path, name), sure)
    except MachineError as error:
        where, what = error.problems[0]
        warning = f"mt: warning[NOT-KEPT] {where}: {what}; the translations are not kept"
        console.print_line(warning)
        return False
    return True


def _open_baseline(path: Path, options: EngineOptions, sets: dict[str, TestSet]) -> OtherSystem:
    """Open a model, or read a file of translations.

    Raises:
        ConfigError: it is a file, and there are several test sets.
        DataError: it has another number of lines than the test set.
        ModelError: it is neither.
    """
    if any(plugin("engines", kind).accepts(path) for kind in plugins("engines")):
        return OtherSystem(path, open_engine(path, _own(options)))
    if not path.is_file():
        what = "neither a model nor a file of translations"
        advice = "give a run, a bundle, or a text file with a translation in each line"
        raise ModelError("BASELINE-NONE", path, what, advice)
    if len(sets) > 1:
        what = f"a file of translations, and there are {len(sets)} test sets"
        raise ConfigError("USAGE", f"--baseline {path}", what, "choose one with --on NAME")
    lines, wanted = list(text_files.read_lines(path)), len(next(iter(sets.values())).sources)
    if len(lines) != wanted:
        what = f"{len(lines)} lines, the test set has {wanted}"
        raise DataError("TEST-LINES", path, what, "line n of one must translate line n")
    return OtherSystem(path, None, lines)


def _own(options: EngineOptions) -> EngineOptions:
    """Return the options of a baseline: of one model, and its own choice of a checkpoint."""
    return replace(options, ensemble_paths=(), checkpoint=None)


def _group_lines(sets: dict[str, TestSet], recipe: Recipe) -> dict[str, list[Bucket]]:
    """Group the lines of each test set; with several directions, its own is a bucket, too."""
    several = len({str(each.direction) for each in sets.values()}) > 1
    lines: dict[str, list[str]] = {}
    for each in sets.values():
        lines.setdefault(each.direction.source, []).extend(each.sources)
    counts = {key: count_training_words(value, key, recipe) for key, value in lines.items()}
    result = {}
    for name, each in sets.items():
        sources, language = each.sources, each.direction.source
        known = counts[language]
        every, direction = np.arange(len(sources)), f"{language}-{each.direction.target}"
        result[name] = [
            *([Bucket("direction", direction, every)] if several else ()),
            *group_by_length(sources, language),
            *(group_by_rarity(sources, language, known) if known is not None else ()),
        ]
    return result


def translate_texts(
    engine: Engine, options: EngineOptions, lines: Iterable[str], target_language: str
) -> list[str]:
    """The translations of lines to a language."""
    return [each.text for each in translate_fully(engine, options, lines, target_language)]


def translate_fully(
    engine: Engine, options: EngineOptions, lines: Iterable[str], target_language: str
) -> list[Translation]:
    """The translations of lines to a language, with all that the engine returns."""
    return list(engine.translate(lines, replace(options, target_language=target_language)))


def hypotheses_folder(path: Path) -> Path:
    """The folder of translations: RUN/hypotheses, FOLDER/hypotheses, X.mt.hypotheses."""
    if path.is_file() and not run_directory.is_run(path):
        return path.with_name(f"{path.name}.hypotheses")
    return run_of(path) / "hypotheses"


def _read_test_sets(
    sets: dict[str, SourceConfig], names: Iterable[str], where: Path
) -> dict[str, TestSet]:
    """Read the test sets of a recipe, those named or all."""
    names = list(names)
    for name in names:
        if name not in sets:
            near = difflib.get_close_matches(name, sets, n=1)
            advice = f"there are: {', '.join(sets)}" if sets else "the recipe has none"
            what = f"no such test set (did you mean {near[0]}?)" if near else "no such test set"
            raise ConfigError("TEST-NONE", f"--on {name}", what, advice)
    if not sets:
        advice = "name some under data.test, or give --source FILE --reference FILE"
        raise ConfigError("TEST-NONE", where, "its recipe has no test sets", advice)
    chosen = {name: sets[name] for name in names or sets}
    return {name: TestSet(*read_test_set(each), each.direction) for name, each in chosen.items()}


def read_test_set(config: SourceConfig) -> Texts:
    """The source lines and the references of a test set."""
    sources, targets = [], []
    for pair in plugin("sources", config.kind).read(config):
        if pair.source is None or pair.target is None:
            advice = "a test set needs both sides"
            raise DataError("TEST-SIDE", pair.origin, "a side is missing", advice)
        sources.append(pair.source)
        targets.append(pair.target)
    return sources, [targets]


def _read_files(
    source: Path | None, references: Sequence[Path], recipe: Recipe, target: str | None
) -> dict[str, TestSet]:
    """Read a text and its translations, whose language is by default that of the recipe.

    Without both there is no test set.
    """
    if source is None and not references:
        return {}
    if source is None or not references:
        given, missing = ("--source", "--reference") if source else ("--reference", "--source")
        what = f"there is no {missing} to go with it"
        raise ConfigError("USAGE", given, what, "give both --source FILE and --reference FILE")
    lines = list(text_files.read_lines(source))
    targets = [list(text_files.read_lines(path)) for path in references]
    for path, each in zip(references, targets, strict=True):
        if len(each) != len(lines):
            what = f"{len(each)} lines, {source} has {len(lines)}"
            raise DataError("TEST-LINES", path, what, "line n of one must translate line n")
    to = target or recipe.direction.target
    direction = Languages(source=recipe.direction.source, target=to)
    return {source.name: TestSet(lines, targets, direction)}


_NOT_IN_NAMES = re.compile(r'[\\/:*?"<>|\x00-\x1f\x7f]')
"""Characters that lead out of a folder, or that some file system refuses."""
_LONGEST_NAME = 60
"""Characters of a file name: of at most four bytes each, where 255 fit."""


def hypothesis_path(path: Path, name: str, part: str) -> Path:
    """The file of a test set's translations (part ""), its `.source` or its `.reference`."""
    return hypotheses_folder(path) / f"{_NOT_IN_NAMES.sub('_', name)[:_LONGEST_NAME]}{part}.txt"


def confidence_path(path: Path, name: str) -> Path:
    """The file with the confidence of each translation of a test set."""
    return hypothesis_path(path, name, "").with_suffix(".confidence.jsonl")


def sample_translations(path: Path, name: str, count: int) -> list[tuple[str, ...]]:
    """(source, reference, translation) of lines spread over an evaluated test set."""
    texts = [list(text_files.read_lines(hypothesis_path(path, name, part))) for part in PARTS]
    return spread(list(zip(*texts, strict=True)), count)


def spread(rows: list[tuple[str, ...]], count: int) -> list[tuple[str, ...]]:
    """At most `count` of the rows, spread over all."""
    return rows[:: max(1, len(rows) // count)][:count] if count else []
