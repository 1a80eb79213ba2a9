"""The translations of a few sentences at each validation of a run, from its `samples.jsonl`."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from mt.errors import printable
from mt.runtime import model_files
from mt.runtime.model_files import JsonObject
from mt.training.reporter import SAMPLES

MOST_SENTENCES, MOST_VALIDATIONS = 3, 12
"""Shown of a run; of more validations some at even distance, the first and the last among them."""
LONGEST = 300
"""Characters of a text that are shown."""


class Output(TypedDict):
    """A translation at a validation."""

    step: int
    text: str


class Sample(TypedDict):
    """A sentence with its translations over a training."""

    source: str
    reference: str
    outputs: list[Output]


class _Validation(JsonObject):
    step: int
    samples: list[list[str]]


def read_samples(run: Path) -> list[Sample]:
    """Return the samples of a run; none for a run that has kept none.

    Raises:
        ModelError: their file is damaged.
    """
    path = run / SAMPLES
    if not path.exists():
        return []
    records = list(model_files.read_json_lines(path, _Validation))
    last = len(records) - 1
    places = {last * n // (MOST_VALIDATIONS - 1) for n in range(MOST_VALIDATIONS)}
    found: dict[tuple[str, str], Sample] = {}
    for place in sorted(places if records else ()):
        for source, reference, text in filter(_is_triple, records[place]["samples"]):
            texts = [printable(each, LONGEST) for each in (source, reference, text)]
            sample = found.setdefault(
                (source, reference), {"source": texts[0], "reference": texts[1], "outputs": []}
            )
            sample["outputs"].append({"step": records[place]["step"], "text": texts[2]})
    return list(found.values())[:MOST_SENTENCES]


def _is_triple(texts: list[str]) -> bool:
    return len(texts) == 3
