"""BLEU, chrF and TER of translations, by sacreBLEU, each with its signature."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mt.checkpoints import run_directory
from mt.checkpoints.bundle import read_any_recipe
from mt.checkpoints.run_directory import run_of
from mt.config.plugins import plugin
from mt.config.schema import SourceConfig
from mt.decoding.types import Engine, EngineOptions
from mt.errors import ConfigError, DataError
from mt.evaluation.metrics import Scores, make_metrics, score_translations
from mt.runtime import files

"""What sacreBLEU cuts a language with when it is not 13a."""


def evaluate(
    path: Path, engine: Engine, names: Iterable[str] = (), source: Path | None = None,
    references: Sequence[Path] = (), options: EngineOptions | None = None,
) -> dict[str, Scores]:  # fmt: skip
    """Translate test sets and score the translations, which are kept; see `hypotheses_folder`.

    Args:
        path: the run directory, a checkpoint folder in it, a bundle or an exported folder: what
            the engine has opened.
        engine: what translates.
        names: test sets of the recipe; all of them when there are none.
        source: a file to translate instead.
        references: its translations, one file a reference.
        options: what is asked of the engine; it knows already what it was opened with. The
            language of a test set is its own, that of a file the one that is asked for here.

    Returns:
        For each test set its scores.

    Raises:
        ConfigError: there is no such test set, or source and references are not given together.
        DataError: source and references differ in their number of lines.
    """
    recipe = read_any_recipe(path)
    if source is not None or references:
        sets = {_file_name(source): _read_files(source, references)}
        asked = options.target_language if options else None
        languages = dict.fromkeys(sets, asked or recipe.direction.target)
    else:
        chosen = _select_tests(recipe.data.test, names, path)
        sets = {name: read_test_set(config) for name, config in chosen.items()}
        languages = {name: config.direction.target for name, config in chosen.items()}
    for language in set(languages.values()):
        make_metrics(language, recipe.evaluation)  # what is missing is told before the work
    result = {}
    files.make_folder(hypotheses_folder(path))
    for name, (lines, wanted) in sets.items():
        asked_for = _with_target_language(engine, options, languages[name])
        found = [translation.text for translation in engine.translate(lines, asked_for)]
        for part, texts in (("", found), (".source", lines), (".reference", wanted[0])):
            _write_texts(hypothesis_path(path, name, part), texts)
        result[name] = score_translations(found, wanted, languages[name], recipe.evaluation)
    return result


def _with_target_language(
    engine: Engine, options: EngineOptions | None, language: str
) -> EngineOptions:
    """What is asked of an engine, and the language to translate to."""
    opened = getattr(engine, "options", None) or EngineOptions()
    return replace(options or opened, target_language=language)


def hypotheses_folder(path: Path) -> Path:
    """Where translations are kept: RUN/hypotheses, FOLDER/hypotheses, X.mt.hypotheses."""
    if path.is_file():
        return path.with_name(f"{path.name}.hypotheses")
    return (run_of(path) if run_directory.is_run(path) else path) / "hypotheses"


def _select_tests(
    sets: dict[str, SourceConfig], names: Iterable[str], where: Path
) -> dict[str, SourceConfig]:
    names = list(names)
    for name in names:
        if name not in sets:
            near = difflib.get_close_matches(name, sets, n=1)
            known = f"there are: {', '.join(sets)}" if sets else "the recipe has none"
            what = f"no such test set (did you mean {near[0]}?)" if near else "no such test set"
            raise ConfigError("TEST-NONE", f"--on {name}", what, known)
    if not sets:
        advice = "name some under data.test, or give --source FILE --reference FILE"
        raise ConfigError("TEST-NONE", where, "its recipe has no test sets", advice)
    return {name: sets[name] for name in names} if names else sets


Texts = tuple[list[str], list[list[str]]]
"""Source lines, and for each reference its lines."""


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


def _read_files(source: Path | None, references: Sequence[Path]) -> Texts:
    if source is None or not references:
        given, missing = ("--source", "--reference") if source else ("--reference", "--source")
        what = f"there is no {missing} to go with it"
        raise ConfigError("USAGE", given, what, "give both --source FILE and --reference FILE")
    lines = list(files.read_lines(source))
    wanted = [list(files.read_lines(path)) for path in references]
    for path, each in zip(references, wanted, strict=True):
        if len(each) != len(lines):
            what = f"{len(each)} lines, {source} has {len(lines)}"
            raise DataError("TEST-LINES", path, what, "line n of one must translate line n")
    return lines, wanted


def _file_name(source: Path | None) -> str:
    return source.name if source else ""


def hypothesis_path(path: Path, name: str, part: str) -> Path:
    """Where the translations (part "") of a test set, its `.source` and its `.reference` lie."""
    return hypotheses_folder(path) / f"{name.replace('/', '_')}{part}.txt"


def _write_texts(path: Path, lines: Iterable[str]) -> None:
    """One line a text, so that the sacrebleu command can score them again."""
    clean = (line.replace("\n", " ").replace("\r", " ") for line in lines)
    files.write_file(path, "".join(f"{line}\n" for line in clean))


def sample_translations(path: Path, name: str, count: int) -> list[tuple[str, ...]]:
    """(source, reference, translation) of lines spread over a test set that was evaluated."""
    parts = (".source", ".reference", "")
    texts = [list(files.read_lines(hypothesis_path(path, name, part))) for part in parts]
    rows = list(zip(*texts, strict=True))
    return rows[:: max(1, len(rows) // count)][:count] if count else []
