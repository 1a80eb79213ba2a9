"""Claim h: whether a small model learns more from a large one than from the data alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from claims import training
from claims.lab import Lab
from claims.recipes import changed, demo
from claims.store import Task
from claims.verdicts import Check, Judgement, Line, Plot, Table, compared, mean, spread
from mt.runtime import files

TITLE = "Distillation"
CLAIM = """
A small student that is taught by a large teacher translates better than the same student that
learns from the data alone.
"""
EXPERIMENT = """
The teacher is the small Transformer of the other claims; the student has half its width and one
decoder layer. Alone, it trains on the data; taught by sequences, on the teacher's translations of
the training sources; taught by words, on the probabilities that the teacher gives to each word
(`mt distill --level`). Same vocabulary size, updates and seeds; BLEU of greedy search on the test
set.
"""
NOTES = (
    "In the demo language each sentence has one right translation, so that what a teacher says is "
    "no simpler than the data; natural data differ in that.",
)
LEVELS = ("sequence", "word")


def measure(lab: Lab) -> dict[str, Any]:
    seeds = lab.choose([1, 2], [1], [1])
    teacher = demo(lab)
    width = teacher["model"]["d_model"] // 2
    student = changed(
        teacher, {"model.d_model": width, "model.d_ff": 4 * width, "model.decoder_layers": 1}
    )
    known = lab.measure({"as it is, seed 1": Task("training:trained", {"recipe": teacher})})
    tasks: dict[str, Task] = {}
    for seed in seeds:
        recipe = changed(student, {"training.seed": seed})
        tasks[f"student alone, seed {seed}"] = Task("training:trained", {"recipe": recipe})
        for level in LEVELS:
            tasks[f"student taught by {level}, seed {seed}"] = Task(
                "h_distillation:taught", {"teacher": teacher, "recipe": recipe, "level": level}
            )
    found = lab.measure(tasks)
    return {
        "seeds": seeds,
        "teacher": known["as it is, seed 1"],
        "alone": [found[f"student alone, seed {seed}"] for seed in seeds],
        **{
            level: [found[f"student taught by {level}, seed {seed}"] for seed in seeds]
            for level in LEVELS
        },
    }


# --------------------------------------------------------------------------- measurements


def taught(
    folder: Path, teacher: dict[str, Any], recipe: dict[str, Any], level: str
) -> dict[str, Any]:
    """`mt distill` of a trained teacher into a student; curves and BLEU."""
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


def judge(found: dict[str, Any]) -> Judgement:
    teacher = found["teacher"]["test"]["test"]
    bleu = {name: [run["test"]["test"] for run in found[name]] for name in ("alone", *LEVELS)}
    checks = (
        Check(f"the teacher reached 20 BLEU ({teacher:.1f})", teacher >= 20),
        Check(f"the student alone is below it ({mean(bleu['alone']):.1f})",
              mean(bleu["alone"]) < teacher),
    )  # fmt: skip
    findings = [
        compared(
            f"a student taught by {level}s is better than one alone by more than half a BLEU",
            bleu[level], bleu["alone"], 0.5,
            f"BLEU {spread(bleu[level])} against {spread(bleu['alone'])}.", checks,
        )
        for level in LEVELS
    ]  # fmt: skip
    rows = [["model", "parameters", "validation loss", "test BLEU"]]
    named = {"teacher": [found["teacher"]], "student, alone": found["alone"]}
    named |= {f"student, taught by {level}s": found[level] for level in LEVELS}
    for name, runs in named.items():
        scores = [run["test"]["test"] for run in runs]
        losses = [run["valid_loss"] for run in runs]
        rows.append([name, f"{runs[0]['parameters']:,}", spread(losses, 3), spread(scores)])
    lines = [
        Line(name, runs[0]["validated"],
             [mean(y) for y in zip(*(run["valid_losses"] for run in runs), strict=True)])
        for name, runs in named.items()
    ]  # fmt: skip
    plot = Plot("loss", "Validation loss of teacher and students", "updates", "nats a token", lines)
    seeds = len(found["seeds"])
    of = f"mean of {seeds} seeds (lowest to highest)" if seeds > 1 else "one seed"
    return Judgement(findings, [Table(f"Teacher and students, {of}", rows)], [plot])
