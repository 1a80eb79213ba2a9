"""Claim i: what pre-training on text alone is worth before little parallel data."""

from __future__ import annotations

from typing import Any

from claims.lab import Lab
from claims.recipes import demo, demo_source, lasting
from claims.store import Task
from claims.verdicts import Check, Judgement, Line, Plot, Table, compared

TITLE = "Pre-training, then fine-tuning"
CLAIM = """
A model that was pre-trained on monolingual text of both languages, and then learns to translate
from few pairs, translates better than one that begins with nothing; the fewer pairs there are, the
larger the difference.
"""
EXPERIMENT = """
Pre-training: the small Transformer puts noised sentences of the demo language right
(`objective.kind: denoising`), English and German ones that are no translations of one another.
Then it is trained on pairs (`training.initialise_from`), as is a new one with the same vocabulary,
equally many updates, each with a learning rate of its own ({tuned:g} and {scratch:g}). BLEU of
greedy search on the test set, of the checkpoint with the best validation BLEU. One seed.
"""
NOTES: tuple[str, ...] = ()
TUNED, SCRATCH = 1e-3, 3e-3
EXPERIMENT = EXPERIMENT.format(tuned=TUNED, scratch=SCRATCH)
WAYS = ("pre-trained", "from scratch")


def measure(lab: Lab) -> dict[str, Any]:
    sizes = lab.choose([1000, 5000, 20_000], [1000, 5000], [200])
    steps = lab.choose(500, 300, 4)
    first = pretraining(lab)
    found = lab.measure({"pre-training": Task("training:trained", {"recipe": first})})
    tasks: dict[str, Task] = {}
    for size in sizes:
        for way, rate, key in (
            ("pre-trained", TUNED, "training.initialise_from"),
            ("from scratch", SCRATCH, "vocabulary.path"),
        ):
            recipe = demo(lab, {
                "data.train": [demo_source("train", size)], "vocabulary": None,
                "training": lasting(steps), "schedule.warmup_steps": max(2, steps // 10),
                "optimizer.learning_rate": rate, "model.dropout": 0.1,
            })  # fmt: skip
            arguments = {"recipe": recipe, "uses": {key: first}}
            tasks[f"{way}, {size:,} pairs"] = Task("training:trained", arguments)
    found |= lab.measure(tasks)
    return {
        "sizes": sizes,
        "pretraining": found["pre-training"],
        "runs": {way: [found[f"{way}, {size:,} pairs"] for size in sizes] for way in WAYS},
    }


def pretraining(lab: Lab) -> dict[str, Any]:
    """The recipe that denoises."""
    size = lab.choose(40_000, 20_000, 300)
    return demo(lab, {
        "data.train": [
            demo_source("train", size, seed=2, only="source"),
            demo_source("train", size, seed=3, only="target"),
        ],
        "data.valid": demo_source("valid", lab.choose(400, 200, 20), only="target"),
        "data.test": None, "training.monitor": "loss",
        "objective!": {"kind": "denoising", "mask": 0.35, "span": 3.0, "label_smoothing": 0.0},
    })  # fmt: skip


# -------------------------------------------------------------------------------- verdict


def judge(found: dict[str, Any]) -> Judgement:
    sizes, runs = found["sizes"], found["runs"]
    bleu = {way: [run["test"]["test"] for run in runs[way]] for way in WAYS}
    ours, other = WAYS
    gains = [a - b for a, b in zip(bleu[ours], bleu[other], strict=True)]
    began = found["pretraining"]["valid_losses"]
    told = f"pre-training lowered its validation loss ({began[0]:.2f} to {min(began):.2f})"
    learned = Check(told, min(began) < began[0])
    findings = []
    for number, size in enumerate(sizes):
        best = max(bleu[way][number] for way in WAYS)
        checks = (learned, Check(f"the better one reached 5 BLEU ({best:.1f})", best >= 5))
        findings.append(
            compared(
                f"pre-training helps before {size:,} pairs, by more than 1 BLEU",
                [bleu[ours][number]], [bleu[other][number]], 1.0,
                f"BLEU {bleu[ours][number]:.1f} against {bleu[other][number]:.1f}.", checks,
            )
        )  # fmt: skip
    findings.append(
        compared(
            "the fewer pairs, the more it helps", [gains[0]], [gains[-1]], 0.0,
            ", ".join(f"{g:+.1f} BLEU at {n:,}" for g, n in zip(gains, sizes, strict=True)) + ".",
            (learned, Check(f"several sizes ({len(sizes)})", len(sizes) > 1)),
        )
    )  # fmt: skip
    rows = [["pairs", *(f"{way}, BLEU" for way in WAYS), *(f"{way}, loss" for way in WAYS)]]
    for number, size in enumerate(sizes):
        cells = [f"{bleu[way][number]:.1f}" for way in WAYS]
        cells += [f"{runs[way][number]['valid_loss']:.3f}" for way in WAYS]
        rows.append([f"{size:,}", *cells])
    plot = Plot("bleu", "Pre-trained or not, against the number of pairs", "pairs", "test BLEU",
                [Line(way, sizes, bleu[way]) for way in WAYS], log_x=True)  # fmt: skip
    return Judgement(findings, [Table("Test BLEU and validation loss", rows)], [plot])
