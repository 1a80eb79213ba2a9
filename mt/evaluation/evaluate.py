"""BLEU, chrF and TER of translations, by sacreBLEU, each with its signature."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from mt.checkpoints import bundle, checkpoint
from mt.config.recipe import Evaluation, Recipe
from mt.config.yaml_reader import plugin
from mt.decoding.batching import plain_code, space_between
from mt.errors import ConfigError, DataError, DownloadError, ModelError
from mt.interfaces import Engine, EngineOptions, SourceConfig
from mt.runtime import files

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric

TOKENIZERS = {"zh": "zh", "cmn": "zh", "zho": "zh", "yue": "zh", "lzh": "zh"}
TOKENIZERS |= {"ja": "ja-mecab", "jpn": "ja-mecab", "ko": "ko-mecab", "kor": "ko-mecab"}
"""What sacreBLEU cuts a language with when it is not 13a."""
EXTRAS = {"ja-mecab": "japanese", "ko-mecab": "korean"}


class Metrics(TypedDict):
    """A score and what says how it was computed."""

    score: float
    signature: str


Scores = dict[str, Metrics]
"""`BLEU`, `chrF2` and `TER`."""


def evaluate(
    path: Path, engine: Engine, names: Iterable[str] = (), source: Path | None = None,
    references: Sequence[Path] = (), options: EngineOptions | None = None,
) -> dict[str, Scores]:  # fmt: skip
    """Translate test sets and score the translations, which are kept; see `kept_in`.

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
    recipe = recipe_of(path)
    if source is not None or references:
        sets = {_name(source): _from_files(source, references)}
        asked = options.target_language if options else None
        languages = dict.fromkeys(sets, asked or recipe.direction.target)
    else:
        chosen = _chosen(recipe.data.test, names, path)
        sets = {name: read_test(config) for name, config in chosen.items()}
        languages = {name: config.direction.target for name, config in chosen.items()}
    for language in set(languages.values()):
        metrics(language, recipe.evaluation)  # what is missing is told before the work
    result = {}
    files.make_folder(kept_in(path))
    for name, (lines, wanted) in sets.items():
        asked_for = _asking(engine, options, languages[name])
        found = [translation.text for translation in engine.translate(lines, asked_for)]
        for part, texts in (("", found), (".source", lines), (".reference", wanted[0])):
            _keep(kept(path, name, part), texts)
        result[name] = score(found, wanted, languages[name], recipe.evaluation)
    return result


def _asking(engine: Engine, options: EngineOptions | None, language: str) -> EngineOptions:
    """What is asked of an engine, and the language to translate to."""
    opened = getattr(engine, "options", None) or EngineOptions()
    return replace(options or opened, target_language=language)


def recipe_of(path: Path) -> Recipe:
    """The recipe of a run, of a bundle, or of a folder that holds one (as exported ones do).

    Raises:
        ModelError: there is none.
    """
    if path.is_file():
        return bundle.read_recipe(path)
    if checkpoint.is_run(path):
        return checkpoint.read_recipe(_run_of(path))
    if (path / "config.yaml").is_file():
        return checkpoint.read_recipe(path)
    advice = "give the run directory that it came from"
    raise ModelError("RUN-NONE", path, "not a run; there is no recipe to evaluate by", advice)


def kept_in(path: Path) -> Path:
    """Where translations are kept: RUN/hypotheses, FOLDER/hypotheses, X.mt.hypotheses."""
    if path.is_file():
        return path.with_name(f"{path.name}.hypotheses")
    return (_run_of(path) if checkpoint.is_run(path) else path) / "hypotheses"


def _run_of(path: Path) -> Path:
    """The run directory of a run, or of a checkpoint folder in one."""
    return path if (path / "checkpoints").is_dir() else path.resolve().parent.parent


def _chosen(
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


def read_test(config: SourceConfig) -> Texts:
    """The source lines and the references of a test set."""
    sources, targets = [], []
    for pair in plugin("sources", config.kind).read(config):
        if pair.source is None or pair.target is None:
            advice = "a test set needs both sides"
            raise DataError("TEST-SIDE", pair.origin, "a side is missing", advice)
        sources.append(pair.source)
        targets.append(pair.target)
    return sources, [targets]


def _from_files(source: Path | None, references: Sequence[Path]) -> Texts:
    if source is None or not references:
        given, missing = ("--source", "--reference") if source else ("--reference", "--source")
        what = f"there is no {missing} to go with it"
        raise ConfigError("USAGE", given, what, "give both --source FILE and --reference FILE")
    lines = list(files.lines(source))
    wanted = [list(files.lines(path)) for path in references]
    for path, each in zip(references, wanted, strict=True):
        if len(each) != len(lines):
            what = f"{len(each)} lines, {source} has {len(lines)}"
            raise DataError("TEST-LINES", path, what, "line n of one must translate line n")
    return lines, wanted


def _name(source: Path | None) -> str:
    return source.name if source else ""


def kept(path: Path, name: str, part: str) -> Path:
    """Where the translations (part "") of a test set, its `.source` and its `.reference` lie."""
    return kept_in(path) / f"{name.replace('/', '_')}{part}.txt"


def _keep(path: Path, lines: Iterable[str]) -> None:
    """One line a text, so that the sacrebleu command can score them again."""
    clean = (line.replace("\n", " ").replace("\r", " ") for line in lines)
    files.write(path, "".join(f"{line}\n" for line in clean))


def examples(path: Path, name: str, count: int) -> list[tuple[str, ...]]:
    """(source, reference, translation) of lines spread over a test set that was evaluated."""
    parts = (".source", ".reference", "")
    texts = [list(files.lines(kept(path, name, part))) for part in parts]
    rows = list(zip(*texts, strict=True))
    return rows[:: max(1, len(rows) // count)][:count] if count else []


# -------------------------------------------------------------------------------- scores


def score(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], target_language: str,
    evaluation: Evaluation,
) -> Scores:  # fmt: skip
    """BLEU, chrF2 and TER with their signatures.

    Args:
        hypotheses: translations, raw text.
        references: one list a reference, each as long as `hypotheses`.
        target_language: chooses the tokenizer, when the evaluation leaves it open.
        evaluation: how to score.

    Raises:
        DataError: the counts differ, or there is nothing to score.
        ConfigError: the tokenizer is not installed.
    """
    for each in references:
        if len(each) != len(hypotheses):
            what = f"{len(hypotheses)} hypotheses, {len(each)} references"
            raise DataError("TEST-LINES", "evaluate", what, "line n of one must translate line n")
    if not hypotheses:
        raise DataError("TEST-EMPTY", "evaluate", "there is nothing to score", "see the test set")
    result: Scores = {}
    for name, metric in metrics(target_language, evaluation).items():
        found = metric.corpus_score(list(hypotheses), [list(each) for each in references])
        signature = str(metric.get_signature())
        result[name] = {"score": round(found.score, 2), "signature": signature}
    return result


def bleu_and_chrf(
    hypotheses: Sequence[str], references: Sequence[str], language: str, evaluation: Evaluation
) -> tuple[float, float]:
    """BLEU and chrF2 of translations with one reference each, as validation needs them."""
    known = metrics(language, evaluation)
    texts = (list(hypotheses), [list(references)])
    return known["BLEU"].corpus_score(*texts).score, known["chrF2"].corpus_score(*texts).score


def metrics(target_language: str, evaluation: Evaluation) -> dict[str, Metric[Any]]:
    """sacreBLEU's metrics for a language.

    Raises:
        ConfigError: the tokenizer is not installed; names what installs it.
        DownloadError: the tokenizer's model cannot be fetched.
    """
    from sacrebleu.metrics import BLEU, CHRF, TER

    name = tokenizer(target_language, evaluation)
    try:
        bleu = BLEU(tokenize=name, lowercase=evaluation.lowercase, force=True)
    except RuntimeError:
        what = f"the tokenizer {name} is not installed"
        advice = f"pip install 'mt[{EXTRAS[name]}]', or set another one, such as char"
        raise ConfigError("TOKENIZER", "evaluation.tokenize", what, advice) from None
    except OSError as error:
        what = f"the model of the tokenizer {name} cannot be fetched ({error})"
        advice = "go online once, or set another evaluation.tokenize"
        raise DownloadError("TOKENIZER", "evaluation.tokenize", what, advice) from None
    # Words without spaces between them are no words to TER unless it cuts them itself.
    asian = not space_between(target_language)
    return {
        "BLEU": bleu,
        "chrF2": CHRF(lowercase=evaluation.lowercase),
        "TER": TER(normalized=asian, asian_support=asian),
    }


def tokenizer(target_language: str, evaluation: Evaluation) -> str:
    """The name of sacreBLEU's tokenizer for a language."""
    if evaluation.tokenize != "auto":
        return evaluation.tokenize
    return TOKENIZERS.get(plain_code(target_language), "13a")
