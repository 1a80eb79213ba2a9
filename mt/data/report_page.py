"""The data report for readers: one HTML page with a JSON twin, and a short table.

The page needs no network and no JavaScript, and follows the light or dark setting of its reader.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mt.data.report import CELLS, LONGEST
from mt.data.verdict import judge, shares
from mt.runtime.console import align_columns
from mt.runtime.html_page import render_template, write_page

WIDTH, HEIGHT = 600, 160
"""Of a histogram, in pixels of its drawing."""
CELL = 10
"""Side of a cell of the table of lengths, in pixels of its drawing."""


def render(report: dict[str, Any]) -> str:
    """Return the page of a report.

    Jinja2 escapes all text of the corpora; `describe_data` has escaped control characters.
    """
    return render_template(
        Path(__file__).with_name("report.html"), report=report, remarks=judge(report),
        shares=shares(report), histogram=histogram, scatter=scatter,
        size={"width": WIDTH, "height": HEIGHT, "square": (CELLS + 1) * CELL, "longest": LONGEST},
    )  # fmt: skip


def histogram(counts: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """Return the bars of two sides beside each other: place, size and label of each."""
    most = max(1, *(max(side) for side in counts))
    step = WIDTH / len(counts[0])
    bars = []
    for number, side in enumerate(counts):
        for words, count in enumerate(side):
            height = HEIGHT * count / most
            if count:
                bars.append({
                    "x": round(step * (words + 0.45 * number), 1), "y": round(HEIGHT - height, 1),
                    "width": round(0.45 * step, 1), "height": round(height, 1), "side": number,
                    "label": f"{words}{' or more' if words == LONGEST else ''} words: {count:,}",
                })  # fmt: skip
    return bars


def scatter(cells: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """Return the cells of source against target length: place, darkness and label of each."""
    most = math.log1p(max(map(max, cells)))
    step = LONGEST // CELLS
    return [
        {
            "x": column * CELL, "y": (CELLS - row) * CELL,
            "darkness": round(math.log1p(count) / most, 2),
            "label": f"source {column * step}, target {row * step} words: {count:,} pairs",
        }
        for column, counts in enumerate(cells) for row, count in enumerate(counts) if count
    ]  # fmt: skip


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write the page, and the same figures as JSON beside it.

    Raises:
        ConfigError: there is a file already.
        MachineError: they cannot be written.
    """
    figures = {**report, "shares": shares(report), "verdict": judge(report)}
    write_page(lambda: render(report), figures, path, "name a new file, or delete this one")


def format_report(report: dict[str, Any]) -> Iterator[str]:
    """Format sizes, suspects, leaks and the verdict as lines of text."""
    rows = [["corpus", "pairs", "suspects", "repeated", "words", ""]]
    for number, corpus in enumerate(report["train"]):
        words = " / ".join(f"{count:,}" for count in corpus["words"])
        rows.append([f"train.{number}", f"{corpus['pairs']:,}", f"{corpus['suspects']:,}",
                     f"{corpus['repeated'].get('pair', 0):,}", words, ""])  # fmt: skip
    yield from align_columns(rows)
    yield ""
    rows = [["held out", "pairs", "in training: exactly", "normal form", "source", "target"]]
    for name, corpus in report["held_out"].items():
        leaked = [f"{count:,}" for count in corpus["leaked"].values()]
        rows.append([name, f"{corpus['pairs']:,}", *leaked])
    yield from align_columns(rows)
    yield ""
    yield from (f"{remark.level}: {remark.text}" for remark in judge(report))
