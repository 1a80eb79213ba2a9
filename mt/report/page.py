"""The report of a run as one HTML page with a JSON twin.

The page needs no network. Without JavaScript all of it can be read; with it the table of sentences
is sorted and filtered. It follows the light or dark setting of its reader.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from mt.evaluation.confidence import rate_units
from mt.report.attention import draw_map
from mt.runtime.html_page import render_template, write_page

WIDTH, HEIGHT, EDGE = 256, 140, 34
"""Of a chart, and of the space for its labels, in pixels of its drawing."""
SIDE, ABOVE = 260, 14
"""Of the plot of the calibration without its labels, and of the space above it, in pixels."""
NAMES = {
    "valid_bleu": "validation BLEU", "valid_chrf": "validation chrF",
    "valid_loss": "validation loss", "train_loss": "loss of training pairs",
}  # fmt: skip
"""Titles of the curves."""
SURE, UNSURE = 0.6, 0.3
"""Probabilities below which a word is underlined, and underlined as unlikely."""
GRADES = (70, 50, 30)
"""Expected chrF at which a line is good, fair and poor; below the last it is bad."""


def write_report(report: dict[str, Any], path: Path, force: bool = False) -> None:
    """Write the page, and the same figures as JSON beside it.

    Raises:
        ConfigError: there is a file already, and `force` is false.
        MachineError: they cannot be written.
    """
    advice = None if force else "replace it with --force, or name a new file"
    write_page(lambda: render(report), report, path, advice)


def render(report: dict[str, Any]) -> str:
    """Return the page; Jinja2 escapes all text of corpora and translations."""
    return render_template(
        Path(__file__).with_name("page.html"), report=report, verdict=verdict(report),
        chart=chart, marked=marked, draw_map=draw_map, dots=dots, grade=grade,
        size={"width": WIDTH, "height": HEIGHT, "edge": EDGE, "side": SIDE, "above": ABOVE},
        names=NAMES,
    )  # fmt: skip


def verdict(report: dict[str, Any]) -> list[str]:
    """Return the report in a few sentences."""
    first, *others = report["runs"]
    lines = []
    for name, test in report["tests"].items():
        metric, score = next(iter(test["scores"].items()))
        text = f"{name}: {metric} {score['score']:.1f}"
        tested = score.get("baselines", {}).get("against")
        if others and tested and tested["difference"] is not None:
            low, high = tested["interval"]
            text += f", {tested['difference']:+.1f} to {others[0]['name']}: {tested['verdict']}"
            text += (
                f" (95 % between {low:+.1f} and {high:+.1f}, p = {tested['p_randomisation']:.3g})"
            )
        count = len({row for rows in test["errors"].values() for row in rows[0]})
        lines.append(f"{text}; {count / max(1, test['lines']):.1%} of the lines have a fault")
        sure = test["expected_chrf"][0]
        if sure is not None:
            correlation = (
                "undefined" if sure["correlation"] is None else f"{sure['correlation']:.2f}"
            )
            lines.append(
                f"{name}: {sure['share_above']:.0%} of the lines have an expected chrF above"
                f" {sure['threshold']:g}; its correlation with chrF is {correlation}"
            )
    if report["usual"] is not None:
        lines.append(f"Compared: {report['usual']}")
    if not report["remarks"]:
        lines.append(f"The training of {first['name']} shows nothing that looks wrong")
    return lines


def chart(curves: Sequence[Sequence[Sequence[float]]]) -> dict[str, Any] | None:
    """Return the lines of some curves of points (x, y): SVG paths and the ends of the axes."""
    points = [point for curve in curves for point in curve]
    if len(points) < 2:
        return None
    xs, ys = zip(*points, strict=True)
    low, high = min(ys), max(ys)
    scale_x = (WIDTH - EDGE) / max(1e-9, max(xs))
    scale_y = (HEIGHT - 20) / max(1e-9, high - low)
    paths = [
        " ".join(f"{EDGE + x * scale_x:.1f},{HEIGHT - 14 - (y - low) * scale_y:.1f}" for x, y in c)
        for c in curves
    ]
    return {"paths": paths, "low": f"{low:.3g}", "high": f"{high:.3g}", "last": f"{max(xs):,.0f}"}


def dots(bins: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the dots of a plot of expected and real chrF: their places and radii in pixels."""
    total, scale = max(1, sum(each["lines"] for each in bins)), SIDE / 100
    return [
        {
            "x": round(EDGE + each["expected"] * scale, 1),
            "y": round(SIDE + ABOVE - each["chrf"] * scale, 1),
            "radius": round(2 + 12 * (each["lines"] / total) ** 0.5, 1), "lines": each["lines"],
        }
        for each in bins
    ]  # fmt: skip


def grade(expected: float) -> int:
    """Return the grade of an expected chrF, from 0 (good) to 3 (bad)."""
    return sum(expected < limit for limit in GRADES)


def marked(reference: str, output: str, words: Sequence[tuple[str, float]] = ()) -> Markup:
    """Return a translation with the words marked that its reference has not, without spaces the
    characters.

    Where probabilities are known, the unlikely ones are underlined, too.
    """
    a, b = reference.split(), output.split()
    gap = " " if len(b) > 1 else ""
    if not gap:
        a, b = list(reference), list(output)
    grades = [(p < SURE) + (p < UNSURE) for p in rate_units(words, b)]
    parts = []
    for tag, _, _, start, end in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        runs = groupby(range(start, end), grades.__getitem__)
        texts = [_underline(gap.join(b[i] for i in run), grade) for grade, run in runs]
        text = Markup(gap).join(texts)
        if start < end:
            parts.append(text if tag == "equal" else Markup("<mark>{}</mark>").format(text))
    return Markup(gap).join(parts)


def _underline(text: str, grade: int) -> Markup:
    if grade == 0:
        return escape(text)
    return Markup('<u class="{}">{}</u>').format("un" if grade == 2 else "so", text)
