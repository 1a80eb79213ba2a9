"""Runs whose translations of a test set `mt eval` has kept, without a model that translates."""

from __future__ import annotations

import json
from pathlib import Path

import tiny_run

from mt.evaluation.evaluate import PARTS, confidence_path, hypothesis_path

ROWS = list(zip(tiny_run.SOURCES, tiny_run.TARGETS, tiny_run.TARGETS, strict=True))
"""Source, reference and translation: a perfect run."""
VALIDATIONS = [
    {"step": 5 * n, "epoch": n, "valid_loss": 4 / n, "valid_bleu": 9.0 * n, "valid_chrf": 20.0 + n}
    for n in (1, 2, 3)
]


SAMPLES = [("A house.", "Ein Haus."), ("Two.", "Zwei.")]


def evaluated(
    folder: Path, rows=ROWS, name: str = "test_one", expected=None, samples=(), model=None
) -> Path:
    """A run in a new folder with kept translations and logs.

    `expected` is the expected chrF of each row; `samples` are steps at which some were logged.
    """
    folder.mkdir()
    run = tiny_run.make(folder, model=model)
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(v)}\n" for v in VALIDATIONS))
    (run / "hypotheses").mkdir()
    for number, part in enumerate(PARTS):
        text = "".join(f"{row[number]}\n" for row in rows)
        hypothesis_path(run, name, part).write_text(text)
    if expected is not None:
        lines = [
            {"expected_chrf": value, "words": [(word, value / 100) for word in row[2].split()]}
            for value, row in zip(expected, rows, strict=True)
        ]
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        confidence_path(run, name).write_text(text)
    for step in samples:
        outputs = [(*texts, f"{texts[1]} {step}") for texts in SAMPLES]
        with open(run / "samples.jsonl", "a") as stream:
            stream.write(json.dumps({"step": step, "samples": outputs}) + "\n")
    return run
