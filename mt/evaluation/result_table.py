"""The scores of `mt eval` as tables: scores, expected chrF, tests against baselines, buckets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mt.evaluation.confidence import ExpectedChrf
from mt.runtime import console

Rows = list[tuple[str, ...]]


def format_scores(
    scores: Mapping[str, Mapping[str, Any]], expected: Mapping[str, ExpectedChrf] | None = None
) -> list[str]:
    """Return the lines of the tables of all test sets."""
    rows: Rows = [("test set", "metric", "score", "signature")]
    for name, metrics in scores.items():
        for metric, value in metrics.items():
            score = "undefined" if "undefined" in value else format_score(value["score"])
            rows.append((name, metric, score, value["signature"]))
    lines = list(console.align_columns(rows, left=(0, 1, 3)))
    for table, left in (
        (_expected_rows(expected or {}), (0,)),
        (_baseline_rows(scores), (0, 1, 2, 8)),
        (_bucket_rows(scores), (0, 1, 2, 3)),
    ):
        if len(table) > 1:
            lines += ["", *console.align_columns(table, left=left)]
    return lines


def format_score(score: float) -> str:
    """Format a score with two digits, or with four where two are not all of it."""
    return f"{score:.{_digits(score)}f}"


def _digits(score: float) -> int:
    return 2 if round(score, 2) == score else 4


def _expected_rows(expected: Mapping[str, ExpectedChrf]) -> Rows:
    above = next((f"above {each['threshold']:g}" for each in expected.values()), "")
    rows: Rows = [("test set", "lines", "expected chrF", "correlation with chrF", above)]
    for name, each in expected.items():
        rows.append((
            name, f"{each['lines']:,}", _number(each["mean"], 2), _number(each["correlation"], 2),
            f"{each['share_above']:.1%} of lines",
        ))  # fmt: skip
    return rows


def _baseline_rows(scores: Mapping[str, Mapping[str, Any]]) -> Rows:
    head = ("test set", "metric", "baseline", "its score", "difference", "95 % interval")
    rows: Rows = [(*head, "p (randomisation)", "p (bootstrap)", "verdict")]
    for name, metric, value in _compared(scores):
        digits = _digits(value["score"])
        for path, other in value["baselines"].items():
            rows.append((
                name, metric, path, _number(other["score"], digits),
                _number(other["difference"], digits, "+"), _range(other["interval"], digits, "+"),
                _number(other["p_randomisation"], 4), _number(other["p_bootstrap"], 4),
                other["verdict"],
            ))  # fmt: skip
    return rows


def _bucket_rows(scores: Mapping[str, Mapping[str, Any]]) -> Rows:
    names = list(dict.fromkeys(
        path for _, _, value in _compared(scores) for path in value["baselines"]
    ))  # fmt: skip
    head = ("test set", "metric", "lines by", "bucket", "lines", "score", "95 % interval")
    differences = [text for name in names for text in (f"to {name}", "95 % interval")]
    rows: Rows = [(*head, *differences)]
    for name, metric, value in _compared(scores):
        digits = _digits(value["score"])
        for bucket in value["buckets"]:
            cells = [
                text
                for each in map(bucket["baselines"].__getitem__, names)
                for text in (
                    _number(each["difference"], digits, "+"),
                    _range(each["interval"], digits, "+"),
                )
            ]
            rows.append((
                name, metric, bucket["by"], bucket["bucket"], str(bucket["lines"]),
                _number(bucket["score"], digits), _range(bucket["interval"], digits), *cells,
            ))  # fmt: skip
    return rows


def _compared(
    scores: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield (test set, metric, value) of each score that was compared with a baseline."""
    for name, metrics in scores.items():
        for metric, value in metrics.items():
            if "baselines" in value:
                yield name, metric, value


def _number(value: float | None, digits: int, sign: str = "") -> str:
    return "undefined" if value is None else f"{value:{sign}.{digits}f}"


def _range(limits: Sequence[float | None], digits: int, sign: str = "") -> str:
    if None in limits:
        return "undefined"
    return " to ".join(_number(limit, digits, sign) for limit in limits)
