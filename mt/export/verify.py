"""Prove that an exported model translates and scores like its original."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from mt.checkpoints.run_directory import LoadedModel
from mt.config.plugins import plugin
from mt.config.recipe import Recipe
from mt.data.pairs import Pair
from mt.data.text import is_blank
from mt.decoding.text_translator import TextTranslator
from mt.decoding.types import Engine, EngineOptions
from mt.errors import ConfigError, ModelError, MtError
from mt.evaluation import metrics
from mt.runtime import files
from mt.special_tokens import END

SAMPLE_LINES = 200
"""Most lines that are translated with both."""
TIE_MARGIN = 1e-3
"""Two tokens of which one may stand for the other: their log-probabilities differ by less."""
MAX_LOSS = 0.1
"""Log-probability a token by which the model may find other translations worse than its own."""
GREEDY_OPTIONS = EngineOptions(search={"kind": "greedy"})


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


@dataclass(frozen=True)
class Sample:
    """Lines to try an export with."""

    name: str
    lines: list[str]
    references: list[str] | None
    language: str
    """Of the references."""


@dataclass(frozen=True)
class ExportRow:
    """What there is to compare of a model and its export."""

    name: str
    bytes: int
    """On disk."""
    lines_per_second: float | None
    """Of the sample, by the search of the recipe."""
    bleu: float | None
    """By the search of the recipe; None without references."""


def pick_sample(opened: LoadedModel, file: Path | None) -> Sample:
    """The lines to compare with, those that fit the model whole.

    Raises:
        ConfigError: none of the recipe's test sets, nor its validation corpus, can be read here.
    """
    data, target = opened.recipe.data, opened.recipe.direction.target
    if file is not None:
        read = [(line, "") for line in islice(files.read_lines(file), SAMPLE_LINES)]
        if lines := [source for source, _ in _fits_model(read, opened)]:
            return Sample(file.name, lines, None, target)
        what = "there is no text in it that fits the model"
        raise ConfigError("EXPORT-SAMPLE", file, what, "give another file")
    for name, config in [*data.test.items(), ("the validation corpus", data.valid)]:
        try:
            pairs = list(islice(plugin("sources", config.kind).read(config), SAMPLE_LINES))
        except (MtError, ImportError):
            continue
        read = [(pair.source, pair.target) for pair in pairs if pair.source and pair.target]
        if both := _fits_model(read, opened):
            sources, targets = zip(*both, strict=True)
            return Sample(name, list(sources), list(targets), config.direction.target)
    what = "no test set of the recipe, nor its validation corpus, can be read here"
    raise ConfigError("EXPORT-SAMPLE", "--sample", what, "give some lines with --sample FILE")


def _fits_model(pairs: Sequence[tuple[str, str]], opened: LoadedModel) -> list[tuple[str, str]]:
    """Those with text that the model need not cut, as other programs do not."""
    sides = zip(*pairs, strict=True) if pairs else ([], [])
    encoders = opened.vocabulary.encode_source, opened.vocabulary.encode_target
    ids = [encode(list(side)) for encode, side in zip(encoders, sides, strict=True)]
    lengths = [max(map(len, both)) for both in zip(*ids, strict=True)]
    room = opened.recipe.data.max_length
    found = zip(pairs, lengths, strict=True)
    return [pair for pair, length in found if length < room and not is_blank(pair[0])]


def compare_with_original(
    ours: TextTranslator, theirs: Engine, opened: LoadedModel, sample: Sample, tolerance: Tolerance
) -> tuple[float, tuple[int, ...]]:
    """The largest difference of forced scores, and the lines that differ by a tie.

    Raises:
        ModelError: the export is not the model.
    """
    asked = replace(GREEDY_OPTIONS, target_language=sample.language)
    greedy = [list(engine.translate(sample.lines, asked)) for engine in (ours, theirs)]
    mine, other = ([each.text for each in found] for found in greedy)
    pairs = [
        _to_pair(a, b, sample) for a, b in zip(sample.lines, sample.references or mine, strict=True)
    ]
    forced = [[each.log_probability for each in engine.score(pairs)] for engine in (ours, theirs)]
    every = [_relative_difference(a, b) for a, b in zip(*forced, strict=True)]
    worst = max(every)
    told = worst if tolerance.chrf is None else _relative_difference(*map(math.fsum, forced))
    if not told <= tolerance.score:  # NaN is no number within it
        line = every.index(worst)
        _raise_difference(
            f"forced scores by {told:.1e}, at most {tolerance.score:.0e} may be", line, forced
        )
    if tolerance.chrf is not None:
        _, chrf = metrics.bleu_and_chrf(other, mine, sample.language, opened.recipe.evaluation)
        if chrf < tolerance.chrf and _log_prob_loss(ours, sample, mine, other) > MAX_LOSS:
            what = f"its greedy translations have chrF2 {chrf:.1f} against those of mt, "
            _raise_difference(f"{what}at least {tolerance.chrf:g} is wanted", 0, [mine, other])
        return worst, ()
    # By their tokens: bytes that are no character may be shown in several ways.
    tokens = [(a.tokens, b.tokens) for a, b in zip(*greedy, strict=True)]
    differing = [line for line, (a, b) in enumerate(tokens) if a != b]
    for line in differing:
        if not _is_tie(ours, sample.lines[line], *tokens[line], sample.language):
            _raise_difference("its greedy translations, and not by a tie", line, [mine, other])
    return worst, tuple(line + 1 for line in differing)


def _log_prob_loss(
    engine: Engine, sample: Sample, mine: Sequence[str], other: Sequence[str]
) -> float:
    """By how much less a token the model finds other translations probable than its own.

    Of an untrained model any translation is as good as its own, however different.
    """
    means = []
    for texts in (mine, other):
        pairs = [_to_pair(a, b, sample) for a, b in zip(sample.lines, texts, strict=True)]
        scores = list(engine.score(pairs))
        total = math.fsum(score.log_probability for score in scores)
        means.append(total / sum(score.tokens for score in scores))
    return means[0] - means[1]


def _translate_texts(engine: Engine, lines: Sequence[str], options: EngineOptions) -> list[str]:
    return [translation.text for translation in engine.translate(lines, options)]


def _to_pair(source: str, target: str, sample: Sample) -> Pair:
    return Pair(source, target, "", sample.language, sample.name)


def _relative_difference(a: float, b: float) -> float:
    return abs(a - b) / max(abs(a), 1e-9)


def _is_tie(
    ours: TextTranslator, line: str, one: Sequence[str], other: Sequence[str],
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
    return abs(gains[0][place] - gains[1][place]) < TIE_MARGIN


def _raise_difference(what: str, line: int, values: Sequence[Sequence[Any]]) -> None:
    mine, other = (each[line] for each in values)
    advice = "the versions of both programs do not go together; please report it"
    told = f"it differs from the model: {what}; line {line + 1} of the sample: {mine} / {other}"
    raise ModelError("EXPORT-DIFFERS", "the export", told, advice)


def measure_engine(
    name: str, path: Path, engine: Engine | None, recipe: Recipe, sample: Sample
) -> ExportRow:  # fmt: skip
    """Size, speed and BLEU."""
    parts = [path] if path.is_file() else [part for part in path.rglob("*") if part.is_file()]
    size = sum(part.stat().st_size for part in parts)
    if engine is None:
        return ExportRow(name, size, None, None)
    start = time.perf_counter()
    texts = _translate_by_recipe(engine, sample)
    seconds = time.perf_counter() - start
    bleu = None
    if sample.references is not None:
        bleu, _ = metrics.bleu_and_chrf(
            texts, sample.references, sample.language, recipe.evaluation
        )
    return ExportRow(name, size, len(texts) / seconds, bleu)


def _translate_by_recipe(engine: Engine, sample: Sample) -> list[str]:
    asked = EngineOptions(target_language=sample.language)
    try:
        return _translate_texts(engine, sample.lines, asked)
    except ConfigError:  # a search that the other program has not
        return _translate_texts(engine, sample.lines, replace(asked, search=GREEDY_OPTIONS.search))
