"""The protocol of the programs in this folder: JSON lines in, a number a line out.

`mt/evaluation/metrics/command.py` is the other side. Nothing but Python is needed here.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
"""`source`, `hypothesis` and `references`, a list, of one line."""


def serve(start: Callable[[], tuple[str, Callable[[list[Row]], list[float]]]]) -> None:
    """Start a metric, and answer each batch of lines until standard input ends.

    `start` returns the version and the function that scores a batch. What a library prints
    meanwhile goes to standard error.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    version, score = start()
    print(json.dumps({"version": version}), file=answers, flush=True)
    rows: list[Row] = []
    for line in sys.stdin:
        if line.strip():
            rows.append(json.loads(line))
            continue
        for number in score(rows):
            print(json.dumps(float(number)), file=answers)
        answers.flush()
        rows = []


def mean_over_references(rows: list[Row], score: Callable[[list[Row]], list[float]]) -> list[float]:
    """Score each line with each of its references, as `reference`; return the mean of each line."""
    count = len(rows[0]["references"])
    each = [
        score([{**row, "reference": row["references"][number]} for row in rows])
        for number in range(count)
    ]
    return [sum(numbers) / count for numbers in zip(*each, strict=True)]
