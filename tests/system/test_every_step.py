"""A run of sixty updates that is stopped at any one of them ends with the same bits.

Between them the runs have all that draws at random or remembers: subword sampling, word dropout,
R-Drop, denoising, a moving average, accumulation, two corpora, and streams.
"""

from __future__ import annotations

import json

import pytest
from resumable_run import bits, written
from test_resume import run_to_the_end

from mt.config import recipe
from mt.config.schema import Languages
from mt.data.sources import demo
from mt.training import loop

STEPS = 60
SAMPLING = {"source": {"dropout": 0.2}, "target": {"dropout": 0.1}}
SHARDS = [f"{number}.jsonl" for number in range(3)]
COMMON = {
    "training__max_steps": STEPS, "training__max_epochs": None, "training__validate_every": 20,
    "training__save_every": 7,
}  # fmt: skip
RECIPES = {
    "r_drop": {
        "data__train": [{"kind": "demo", "size": 150}, {"kind": "demo", "size": 100}],
        "vocabulary__sampling": SAMPLING,
        "objective": {"kind": "r_drop", "alignment_weight": 0.2},
        "model__word_dropout": {"source": 0.1, "target": 0.1},
    },
    "denoising": {
        "data__train": [
            {"kind": "demo", "size": 150, "only": "source"},
            {"kind": "demo", "size": 100, "only": "target"},
        ],
        "data__valid": {"kind": "demo", "split": "valid", "size": 10, "only": "source"},
        "vocabulary__sampling": SAMPLING,
        "objective": {"kind": "denoising", "mask": 0.35, "span": 3.0, "delete": 0.05, "shuffle": 2},
    },
    "stream": {
        "data__train": [
            {"kind": "huggingface", "files": SHARDS[:2]},
            {"kind": "huggingface", "files": SHARDS[2:]},
        ],
        "data__streaming": True, "vocabulary__sample": 200, "vocabulary__sampling": SAMPLING,
    },
}  # fmt: skip


def recipe_of(folder, name):
    """The recipe of that name as a file, and its shards beside it."""
    folder.mkdir()
    pairs = demo.read(demo.Config(size=360, languages=Languages(source="en", target="de")))
    lines = [json.dumps({"en": pair.source, "de": pair.target}) + "\n" for pair in pairs]
    for number, shard in enumerate(SHARDS):
        (folder / shard).write_text("".join(lines[120 * number : 120 * (number + 1)]))
    return written(folder, **COMMON, **RECIPES[name])


@pytest.mark.torture
@pytest.mark.parametrize("name", RECIPES)
def test_a_stop_at_each_step_changes_nothing(name, tmp_path, monkeypatch, figure):
    monkeypatch.setenv("MT_CACHE", str(tmp_path / "cache"))
    loop.train(recipe.load(recipe_of(tmp_path / "whole", name))[0], tmp_path / "whole" / "run")
    whole = bits(tmp_path / "whole" / "run")
    last = whole[f"step-{STEPS:08d}/state"]
    assert last["step"] == STEPS
    assert last["epoch"] >= 2
    for step in range(1, STEPS):
        folder = tmp_path / str(step)
        run_to_the_end(recipe_of(folder, name), folder / "run", [step], monkeypatch)
        assert bits(folder / "run") == whole, step
    figure(f"{name}: stopped at each of {STEPS - 1} steps: all bit-identical")
