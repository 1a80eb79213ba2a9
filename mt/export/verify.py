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
from mt.decoding.candidates import RankingConfig, length_divisor
from mt.decoding.text_translator import TextTranslator, search_config
from mt.decoding.types import ONE_SEARCH, Engine, EngineOptions
from mt.errors import ConfigError, ModelError, MtError
from mt.evaluation import scoring
from mt.evaluation.compare import ModelRow, weight_bytes
from mt.evaluation.evaluate import translate_texts
from mt.runtime import text_files
from mt.special_tokens import END

SAMPLE_LINES = 200
"""Most lines that are translated with both."""
TIE_MARGIN = 1e-3
"""Two tokens tie when their log-probabilities differ by less."""
MAX_LOSS = 0.1
"""Log-probability per token by which other translations may score below the model's own."""
MAX_LOSS_SHARE = 0.5
"""The same as a share of the log-probability of its own, where that is more: a model that has
learned little finds its own translations improbable, and rounding leads it anywhere."""
GREEDY_OPTIONS = EngineOptions(search={"kind": "greedy", **ONE_SEARCH})


@dataclass(frozen=True)
class Tolerance:
    """How much an export may differ from its model."""

    score: float
    """Relative difference of forced scores: of each line if outputs must be equal, else of the
    sum."""
    chrf: float | None = None
    """Least chrF2 of its greedy translations against ours, unless the model finds them about as
    probable as its own; None: they must be equal."""


TOLERANCES = {
    "float32": Tolerance(1e-4),
    **dict.fromkeys(("float16", "bfloat16", "int16"), Tolerance(0.02, 90)),
    **dict.fromkeys(("int8", "int8_float32", "int8_float16", "int8_bfloat16"), Tolerance(0.05, 75)),
}
"""By the type of the weights."""


@dataclass(frozen=True)
class Sample:
    """Lines to compare an export and its model with."""

    name: str
    lines: list[str]
    references: list[str] | None
    language: str
    """Of the references."""

    def pairs(self, targets: Sequence[str]) -> list[Pair]:
        """The lines with these targets."""
        both = zip(self.lines, targets, strict=True)
        return [Pair(source, target, "", self.language, self.name) for source, target in both]


def pick_sample(opened: LoadedModel, file: Path | None) -> Sample:
    """Lines that fit the model: of a file, else of the first test set that can be read.

    Raises:
        ConfigError: none of the recipe's test sets, nor its validation corpus, can be read here.
    """
    data, target = opened.recipe.data, opened.recipe.direction.target
    if file is not None:
        rows = [(line, "") for line in islice(text_files.read_lines(file), SAMPLE_LINES)]
        if lines := [source for source, _ in _fits_model(rows, opened)]:
            return Sample(file.name, lines, None, target)
        what = "there is no text in it that fits the model"
        raise ConfigError("EXPORT-SAMPLE", file, what, "give another file")
    for name, config in [*data.test.items(), ("the validation corpus", data.valid)]:
        try:
            pairs = list(islice(plugin("sources", config.kind).read(config), SAMPLE_LINES))
        except (MtError, ImportError):
            continue
        rows = [(pair.source, pair.target) for pair in pairs if pair.source and pair.target]
        if fitting := _fits_model(rows, opened):
            sources, targets = zip(*fitting, strict=True)
            return Sample(name, list(sources), list(targets), config.direction.target)
    what = "no test set of the recipe, nor its validation corpus, can be read here"
    raise ConfigError("EXPORT-SAMPLE", "--sample", what, "give some lines with --sample FILE")


def _fits_model(pairs: Sequence[tuple[str, str]], opened: LoadedModel) -> list[tuple[str, str]]:
    """Pairs with text that need not be split: other programs do not split."""
    sources, targets = ([pair[side] for pair in pairs] for side in (0, 1))
    ids = opened.vocabulary.encode_source(sources), opened.vocabulary.encode_target(targets)
    return [
        pair
        for pair, source, target in zip(pairs, *ids, strict=True)
        if max(len(source), len(target)) < opened.recipe.data.max_length and not is_blank(pair[0])
    ]


def compare_with_original(
    ours: TextTranslator, theirs: Engine, opened: LoadedModel, sample: Sample, tolerance: Tolerance
) -> tuple[float, tuple[int, ...]]:
    """The largest difference of forced scores, and the lines that differ by a tie.

    Raises:
        ModelError: the export is not the model.
    """
    options = replace(GREEDY_OPTIONS, target_language=sample.language)
    greedy = [list(engine.translate(sample.lines, options)) for engine in (ours, theirs)]
    mine, other = ([each.text for each in outputs] for outputs in greedy)
    pairs = sample.pairs(sample.references or mine)
    forced = [[each.log_probability for each in engine.score(pairs)] for engine in (ours, theirs)]
    differences = [_relative_difference(a, b) for a, b in zip(*forced, strict=True)]
    worst = max(differences)
    total = _relative_difference(*map(math.fsum, forced))
    difference = worst if tolerance.chrf is None else total
    if not difference <= tolerance.score:  # NaN is not within it
        what = f"forced scores by {difference:.1e}, at most {tolerance.score:.0e} may be"
        _raise_difference(what, differences.index(worst), forced)
    if tolerance.chrf is not None:
        _, chrf = scoring.bleu_and_chrf(other, mine, sample.language, opened.recipe.evaluation)
        if chrf < tolerance.chrf and _is_worse(ours, sample, mine, other):
            what = f"its greedy translations have chrF2 {chrf:.1f} against those of mt, "
            _raise_difference(f"{what}at least {tolerance.chrf:g} is wanted", 0, [mine, other])
        return worst, ()
    # By tokens: bytes that are no character have several spellings.
    tokens = [(a.tokens, b.tokens) for a, b in zip(*greedy, strict=True)]
    differing = [line for line, (a, b) in enumerate(tokens) if a != b]
    for line in differing:
        if not _is_tie(ours, sample.lines[line], *tokens[line], sample.language):
            _raise_difference("its greedy translations, and not by a tie", line, [mine, other])
    differing = sorted({*differing, *_compare_own_search(ours, theirs, sample)})
    return worst, tuple(line + 1 for line in differing)


def _compare_own_search(ours: TextTranslator, theirs: Engine, sample: Sample) -> list[int]:
    """Search with both as the recipe does; return the lines that differ by a tie.

    A tie anywhere in the beam may lead to another translation, of about the same score. Lines that
    their length limit ends are left out: what is left to do there, each program does otherwise.

    Raises:
        ModelError: the scores show that it is another search.
    """
    options = EngineOptions(search=ONE_SEARCH, target_language=sample.language)
    config = search_config(ours.profile.search, {})
    if config.kind != "beam":  # greedy is compared above, samples differ
        return []
    assert isinstance(config, RankingConfig)
    try:
        theirs_found = list(theirs.translate(sample.lines, options))
    except ConfigError:  # it has no such search
        return []
    ours_found = list(ours.translate(sample.lines, options))
    differing, losses = [], []
    for line, found in enumerate(zip(ours_found, theirs_found, strict=True)):
        if found[0].tokens == found[1].tokens:
            continue
        ids = _target_ids(ours, *(each.tokens for each in found))
        source = _source_ids(ours, sample.lines[line], sample.language)
        pieces = len(source) - 1 - len(ours.vocabulary.front(ours.target(sample.language)))
        limit = int(config.max_length_ratio * pieces) + config.max_length_extra + 1
        if max(map(len, ids)) >= limit:
            continue
        differing.append(line)
        log_probs = ours.searcher.force([(source, target) for target in ids])
        lengths = [float(length_divisor(config, len(each))) for each in log_probs]
        scores = [math.fsum(each) / by for each, by in zip(log_probs, lengths, strict=True)]
        losses.append(scores[0] - scores[1])
        if abs(math.fsum(losses)) > TIE_MARGIN * len(sample.lines):
            texts = [[each.text for each in side] for side in (ours_found, theirs_found)]
            what = f"its translations by the search {config.kind}, and not by a tie"
            _raise_difference(what, line, texts)
    return differing


def _is_worse(engine: Engine, sample: Sample, mine: Sequence[str], other: Sequence[str]) -> bool:
    """Whether a model finds its own translations much more probable than the others.

    For an untrained model any translation is as good as its own, however different.
    """
    means = []
    for texts in (mine, other):
        scores = list(engine.score(sample.pairs(texts)))
        total = math.fsum(score.log_probability for score in scores)
        means.append(total / sum(score.tokens for score in scores))
    return means[0] - means[1] > max(MAX_LOSS, -MAX_LOSS_SHARE * means[0])


def _relative_difference(a: float, b: float) -> float:
    return abs(a - b) / max(abs(a), 1e-9)


def _is_tie(
    ours: TextTranslator, line: str, one: Sequence[str], other: Sequence[str],
    language: str | None = None,
) -> bool:  # fmt: skip
    """Whether the model finds the first differing tokens of two translations equally probable."""
    source = _source_ids(ours, line, language)
    targets = _target_ids(ours, one, other)
    place = next(i for i, (a, b) in enumerate(zip(*targets, strict=False)) if a != b)
    log_probs = ours.searcher.force([(source, target) for target in targets])
    return abs(log_probs[0][place] - log_probs[1][place]) < TIE_MARGIN


def _source_ids(ours: TextTranslator, line: str, language: str | None) -> list[int]:
    (source,) = ours.vocabulary.encode_source([line])
    return [*ours.vocabulary.front(ours.target(language)), *source, END]


def _target_ids(ours: TextTranslator, *translations: Sequence[str]) -> list[list[int]]:
    """The ids of translations in pieces, `</s>` included."""
    pieces = ours.vocabulary.pieces_target(range(ours.vocabulary.target_size))
    ids = {piece: i for i, piece in enumerate(pieces)}
    return [[*(ids[piece] for piece in tokens), END] for tokens in translations]


def _raise_difference(what: str, line: int, values: Sequence[Sequence[Any]]) -> None:
    mine, other = (each[line] for each in values)
    what = f"it differs from the model: {what}; line {line + 1} of the sample: {mine} / {other}"
    advice = "the versions of both programs do not go together; please report it"
    raise ModelError("EXPORT-DIFFERS", "the export", what, advice)


def measure_engine(
    name: str, path: Path, engine: Engine | None, recipe: Recipe, sample: Sample
) -> ModelRow:
    """Size, and speed and BLEU by the recipe's search, or greedily without such a search."""
    if engine is None:
        return ModelRow(name, weight_bytes(path), None, None)
    start = time.perf_counter()
    try:
        texts = translate_texts(engine, EngineOptions(), sample.lines, sample.language)
    except ConfigError:
        texts = translate_texts(engine, GREEDY_OPTIONS, sample.lines, sample.language)
    speed = len(texts) / (time.perf_counter() - start)
    bleu = None
    if sample.references is not None:
        score, _ = scoring.bleu_and_chrf(
            texts, sample.references, sample.language, recipe.evaluation
        )
        bleu = {sample.name: score}
    return ModelRow(name, weight_bytes(path), speed, bleu)
