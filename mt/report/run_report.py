"""Describe a run, alone or against another one, as plain data for the page.

Nothing is translated: the translations are those that `mt eval` has kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import escape

from mt.checkpoints import run_directory
from mt.checkpoints.run_directory import LoadedModel
from mt.checkpoints.run_list import compare_runs
from mt.config.schema import SourceConfig
from mt.data.scripts import writes_spaces
from mt.errors import ConfigError, DataError, printable
from mt.evaluation.buckets import group_by_length
from mt.evaluation.comparison import compare_scores
from mt.evaluation.confidence import LineConfidence, describe_expected, read_confidences
from mt.evaluation.error_panel import find_errors
from mt.evaluation.evaluate import PARTS, confidence_path, hypothesis_path
from mt.evaluation.scoring import as_result, make_metrics, score_all, sentence_chrf
from mt.report.attention import collect_maps, draw_map
from mt.report.row_selection import select_rows
from mt.report.samples import read_samples
from mt.runtime import text_files
from mt.training.diagnosis import compare_history, diagnose, read_history, read_run_history

FORMAT = 2
CURVES = ("valid_bleu", "valid_chrf", "valid_loss", "train_loss")
"""Of validations, in this order on the page."""
MOST_LINES = 1_000
"""Lines of each test set that the page shows; the worst and the most changed, and a sample."""
MOST_BYTES = 1_400_000
"""Of the shown lines of all test sets on the page, which stays below 2 MB."""
LONGEST = 2_000
"""Characters of a text that are shown."""
MOST_NGRAMS = 30
MOST_MAPS, MOST_MAP_BYTES = 50, 300_000
"""Lines of all test sets with a map of the attention, half of them the worst, half at even
distance; and the bytes of all maps on the page."""
BIN = 10
"""Width of a bin of expected chrF."""


class Side(NamedTuple):
    """A test set, as a run has translated it."""

    sources: list[str]
    references: list[str]
    outputs: list[str]
    sure: list[LineConfidence] | None
    """How sure the run is of each translation; None: unknown."""


def describe_run(path: Path, against: Path | None, attention: bool = True) -> dict[str, Any]:
    """Describe a run, and what another one does better or worse.

    With `attention` the model of the run is opened, and reads some of its translations.

    Raises:
        ModelError: one of them is no run.
        ConfigError: `mt eval` has not kept translations of any test set.
        DataError: translations of a test set are damaged, or of other text than the other run's.
    """
    runs = [run_directory.open_run(each) for each in ((path, against) if against else (path,))]
    tests = {name: list(_sides(runs, name)) for name in _evaluated(runs)}
    if not tests:
        advice = f"translate them first: mt eval {path}"
        raise ConfigError("REPORT-NONE", path, "there are no translations of a test set", advice)
    described = {
        name: _test_facts(sides, runs[0].recipe.data.test[name], runs[0], MOST_BYTES // len(tests))
        for name, sides in tests.items()
    }
    for name, test in described.items() if attention else ():
        target = runs[0].recipe.data.test[name].direction.target
        _add_maps(test["sentences"], path, tests[name][0], target, len(tests))
    history = read_run_history(path)
    return {
        "format": FORMAT,
        "runs": [_run_facts(run) for run in runs],
        "remarks": [str(remark) for remark in diagnose(history)],
        "usual": compare_history(history),
        "curves": [_curves(run) for run in runs],
        "differences": list(compare_runs(*runs)) if against else [],
        "data": _data_facts(runs[0]),
        "samples": [read_samples(run.run) for run in runs],
        "tests": described,
    }


def _evaluated(runs: Sequence[LoadedModel]) -> list[str]:
    """Return the test sets of the first run whose translations all runs have."""
    return [
        name for name in runs[0].recipe.data.test
        if all(hypothesis_path(run.run, name, "").is_file() for run in runs)
    ]  # fmt: skip


def _sides(runs: Sequence[LoadedModel], name: str) -> Iterator[Side]:
    first: Side | None = None
    for run in runs:
        texts = [
            list(text_files.read_lines(hypothesis_path(run.run, name, part))) for part in PARTS
        ]
        source, reference, output = texts
        where = hypothesis_path(run.run, name, "")
        advice = f"translate it again: mt eval {run.run}"
        if not len(source) == len(reference) == len(output):
            raise DataError("REPORT-LINES", where, "its files differ in length", advice)
        if first is not None and (source, reference) != first[:2]:
            what = "of other source or reference text than that of the first run"
            raise DataError("REPORT-LINES", where, what, advice)
        sure = read_confidences(confidence_path(run.run, name), len(output), advice)
        side = Side(source, reference, output, sure)
        first = first or side
        yield side


def _run_facts(run: LoadedModel) -> dict[str, Any]:
    state, model = run.state, run.recipe.model
    sizes = {key: value for key, value in model if isinstance(value, (int, float, str))}
    return {
        "name": printable(run.run.name), "direction": run.recipe.direction.model_dump(),
        "step": state.step, "epochs": state.epoch, "tokens": state.tokens,
        "hours": state.seconds / 3600, "finished": state.finished, "model": sizes,
        "device": run.resolved.get("device", ""), "precision": run.resolved.get("precision", ""),
        "torch": run.resolved.get("torch", ""), "quality": state.quality,
    }  # fmt: skip


def _curves(run: LoadedModel) -> dict[str, list[list[float]]]:
    """Return the points (step, value) of each curve of the validations."""
    history = read_history(run.run, run.recipe, None, bool(run.state.finished))
    return {
        key: [[v["step"], v[key]] for v in history.validations if v.get(key) is not None]
        for key in CURVES
    }


def _data_facts(run: LoadedModel) -> list[dict[str, Any]]:
    """Return the pairs of each corpus, and those dropped by each reason."""
    corpora = dict(run.report.get("corpora") or {}).items()
    return [
        {
            "name": printable(name), "pairs": corpus.get("pairs"), "kept": corpus.get("kept"),
            "dropped": {k: n for k, n in dict(corpus.get("dropped") or {}).items() if n},
        }
        for name, corpus in corpora
    ]  # fmt: skip


# ------------------------------------------------------------------------------ a test set


def _test_facts(
    sides: Sequence[Side], config: SourceConfig, run: LoadedModel, budget: int
) -> dict[str, Any]:
    """Describe a test set; its sentences take at most `budget` bytes of the page."""
    sources, references, *_ = sides[0]
    language, evaluation = config.direction.target, run.recipe.evaluation
    outputs = [side.outputs for side in sides]
    metrics = make_metrics(language, evaluation)
    texts = sources, outputs[0], [references]
    found = score_all(metrics, *texts)
    scores: dict[str, Any] = {name: as_result(score) for name, score in found.items()}
    if len(outputs) > 1:
        others = {"against": outputs[1]}
        scores = dict(compare_scores(evaluation, metrics, found, texts, others, ()))
    chrf = [sentence_chrf(out, references) for out in outputs]
    errors = [find_errors(sources, out) for out in outputs]
    faults = {kind: set(rows) for kind, rows in errors[0].items()}
    return {
        "lines": len(sources), "scores": scores,
        "buckets": _buckets(sources, config.direction.source, chrf),
        "errors": {
            kind: [found.get(kind, []) for found in errors]
            for kind in dict.fromkeys(kind for found in errors for kind in found)
        },
        "ngrams": _ngrams(references, outputs, writes_spaces(language)) if len(sides) > 1 else None,
        "expected_chrf": [_expected(side, each) for side, each in zip(sides, chrf, strict=True)],
        "sentences": [
            {
                "line": row + 1, "source": printable(sources[row], LONGEST),
                "reference": printable(references[row], LONGEST),
                "outputs": [printable(out[row], LONGEST) for out in outputs],
                "chrf": [round(each[row], 1) for each in chrf],
                "errors": [kind for kind, rows in faults.items() if row in rows],
                "sure": [side.sure and side.sure[row] for side in sides],
                "attention": None,
            }
            for row in select_rows(chrf, partial(_page_bytes, sides), MOST_LINES, budget)
        ],
    }  # fmt: skip


def _page_bytes(sides: Sequence[Side], row: int) -> int:
    """Return an upper bound of the bytes of a row of the table of sentences."""
    outputs = [side.outputs[row][:LONGEST] for side in sides]
    texts = [sides[0].sources[row][:LONGEST], sides[0].references[row][:LONGEST], *outputs]
    units = [len(text.split() if " " in text else text) + 1 for text in outputs]
    # At most every other unit begins a `<mark></mark>`; each unsure one is in a `<u class="un">`.
    marks = sum((25 if side.sure else 7) * count for side, count in zip(sides, units, strict=True))
    return 600 + marks + sum(len(escape(printable(each, LONGEST)).encode()) for each in texts)


def _expected(side: Side, chrf: Sequence[float]) -> dict[str, Any] | None:
    """Return the expected chrF of a test set, and its bins; None where it is unknown."""
    if side.sure is None:
        return None
    expected = [line["expected_chrf"] for line in side.sure]
    bins: dict[int, list[int]] = {}
    for row, value in enumerate(expected):
        bins.setdefault(min(99, int(value)) // BIN * BIN, []).append(row)
    return {
        **describe_expected(side.sure, chrf),
        "bins": [
            {
                "from": begin, "lines": len(rows),
                "expected": round(sum(expected[row] for row in rows) / len(rows), 1),
                "chrf": round(sum(chrf[row] for row in rows) / len(rows), 1),
            }
            for begin, rows in sorted(bins.items())
        ],
    }  # fmt: skip


def _add_maps(
    sentences: list[dict[str, Any]], path: Path, side: Side, target: str, tests: int
) -> None:
    """Add the attention of the first run to some sentences: the worst, and some between.

    The number of `tests` shares what the page has room for.
    """
    most, budget = max(2, MOST_MAPS // tests), MOST_MAP_BYTES // tests
    worst = sorted(range(len(sentences)), key=lambda place: sentences[place]["chrf"][0])
    spread = range(0, len(sentences), max(1, -(-2 * len(sentences) // most)))
    chosen = list(dict.fromkeys([*worst[: most // 2], *spread, *worst]))[:most]
    rows = [sentences[place]["line"] - 1 for place in chosen]
    maps = collect_maps(path, [(side.sources[row], side.outputs[row]) for row in rows], target)
    for place, found in zip(chosen, maps, strict=True):
        budget -= len(draw_map(found).encode()) if found else 0
        sentences[place]["attention"] = found if budget >= 0 else None


def _buckets(
    sources: Sequence[str], language: str, chrf: Sequence[Sequence[float]]
) -> list[dict[str, Any]]:
    """Return the mean chrF of the lines of each length of source."""
    return [
        {
            "words": bucket.name, "lines": len(bucket.rows),
            "chrf": [sum(each[row] for row in bucket.rows) / len(bucket.rows) for each in chrf],
        }
        for bucket in group_by_length(sources, language)
    ]  # fmt: skip


def _ngrams(
    references: Sequence[str], outputs: Sequence[Sequence[str]], spaces: bool
) -> dict[str, list[tuple[str, int]]]:
    """Return the n-grams of the references that only one of two runs has, and how often."""
    better: Counter[str] = Counter()
    for reference, one, other in zip(references, *outputs, strict=True):
        wanted = _count_ngrams(reference, spaces)
        hits = [wanted & _count_ngrams(output, spaces) for output in (one, other)]
        for ngram in wanted:
            better[ngram] += hits[0][ngram] - hits[1][ngram]
    ranked = better.most_common()
    return {
        "gained": [(printable(n), c) for n, c in ranked[:MOST_NGRAMS] if c > 1],
        "lost": [(printable(n), -c) for n, c in ranked[::-1][:MOST_NGRAMS] if c < -1],
    }


def _count_ngrams(text: str, spaces: bool) -> Counter[str]:
    """Count the sequences of one to three words, or of two to four characters."""
    units, gap, sizes = (text.split(), " ", (1, 2, 3)) if spaces else (list(text), "", (2, 3, 4))
    return Counter(
        gap.join(units[i : i + size]) for size in sizes for i in range(len(units) - size + 1)
    )
