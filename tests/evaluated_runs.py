"""Runs whose translations of a test set `mt eval` has kept, without a model that translates."""

from __future__ import annotations

import json
from pathlib import Path

import tiny_run

from mt.evaluation.evaluate import PARTS, hypothesis_path

ROWS = list(zip(tiny_run.SOURCES, tiny_run.TARGETS, tiny_run.TARGETS, strict=True))
"""Source, reference and translation: a perfect run."""
VALIDATIONS = [
    {"step": 5 * n, "epoch": n, "valid_loss": 4 / n, "valid_bleu": 9.0 * n, "valid_chrf": 20.0 + n}
    for n in (1, 2, 3)
]


def evaluated(folder: Path, rows=ROWS, name: str = "test_one") -> Path:
    """A run in a new folder with kept translations and a log."""
    folder.mkdir()
    run = tiny_run.make(folder)
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(v)}\n" for v in VALIDATIONS))
    (run / "hypotheses").mkdir()
    for number, part in enumerate(PARTS):
        text = "".join(f"{row[number]}\n" for row in rows)
        hypothesis_path(run, name, part).write_text(text)
    return run
