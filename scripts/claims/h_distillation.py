"""Claim h: whether a small model learns more from a large one than from the data alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from claims import training
from claims.lab import Lab
from claims.recipes import changed, demo
from claims.store import Task
from claims.verdicts import (
    Check,
    Line,
    Part,
    Plot,
    Table,
    bleu_of,
    by_step,
    check_bleu,
    collect,
    find_larger,
    name_seeds,
    over_seeds,
)
from mt.runtime import files

TITLE = "Distillation"
CLAIM = """
A small student that is taught by a large teacher translates better than the same student that
learns from the data alone.
"""
EXPERIMENT = """
The teacher is the small Transformer of the other claims; the student has half its width and one
decoder layer. Alone, it trains on the data; taught by sequences, on the teacher's translations of
the training sources; taught by words, on the teacher's probabilities of each word (`mt distill
--level`). Same vocabulary size, updates and seeds; BLEU of greedy search on the test set.
"""
NOTES = (
    "In the demo language each sentence has one right translation, so that a teacher's "
    "translations are no simpler than the data; natural data differ in that.",
)
LEVELS = ("sequence", "word")


def measure(lab: Lab) -> dict[str, Any]:
    seeds = lab.choose([1, 2], [1], [1])
    teacher = demo(lab)
    width = teacher["model"]["d_model"] // 2
    student = changed(
        teacher, {"model.d_model": width, "model.d_ff": 4 * width, "model.decoder_layers": 1}
    )
    found = lab.measure({"as it is, seed 1": Task("training:trained", {"recipe": teacher})})

    def task(name: str, seed: int) -> Task:
        recipe = changed(student, {"training.seed": seed})
        if name == "alone":
            return Task("training:trained", {"recipe": recipe})
        return Task("h_distillation:taught", {"teacher": teacher, "recipe": recipe, "level": name})

    runs = lab.measure_grid(("alone", *LEVELS), seeds, task)
    return {"seeds": seeds, "teacher": found["as it is, seed 1"], **runs}


# --------------------------------------------------------------------------- measurements


def taught(
    folder: Path, teacher: dict[str, Any], recipe: dict[str, Any], level: str
) -> dict[str, Any]:
    """Distil a trained teacher into a student with `mt distill`; measure curves and BLEU."""
    run = training.run_of(folder, recipe, {level: teacher})
    config = run.with_suffix(".yaml")
    files.make_folder(config.parent)
    files.write_file(config, json.dumps(recipe))
    training.command(
        "distill", training.trained_run(folder, teacher), config, "--run", run, "--level", level,
        "--processes", 1, "--threads", 1, "--precision", "fp32",
    )  # fmt: skip
    return {**training.curves(run), "test": training.tests_of(run)}


# -------------------------------------------------------------------------------- verdict


def judge(found: dict[str, Any]) -> Iterator[Part]:
    (teacher,) = bleu_of([found["teacher"]])
    bleu = {name: bleu_of(found[name]) for name in ("alone", *LEVELS)}
    alone = fmean(bleu["alone"])
    for level in LEVELS:
        yield find_larger(
            f"a student taught by {level}s is better than one alone by more than half a BLEU",
            bleu[level], bleu["alone"], 0.5,
            f"BLEU {over_seeds(bleu[level])} against {over_seeds(bleu['alone'])}.",
            check_bleu("the teacher", teacher),
            Check(f"the student alone is below it ({alone:.1f})", alone < teacher),
        )  # fmt: skip
    named = {"teacher": [found["teacher"]], "student, alone": found["alone"]}
    named |= {f"student, taught by {level}s": found[level] for level in LEVELS}
    rows = [
        (name, f"{runs[0]['parameters']:,}", over_seeds(collect(runs, "valid_loss"), 3),
         over_seeds(bleu_of(runs)))
        for name, runs in named.items()
    ]  # fmt: skip
    yield Table(
        f"Teacher and students, {name_seeds(found['seeds'])}",
        ["model", "parameters", "validation loss", "test BLEU"], rows,
    )  # fmt: skip
    yield Plot(
        "loss", "Validation loss of teacher and students", "updates", "nats a token",
        [Line(name, runs[0]["validated"], list(map(fmean, by_step(runs, "valid_losses"))))
         for name, runs in named.items()],
    )  # fmt: skip
