"""Claim i: what pre-training on text alone gains when there is little parallel data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from claims.lab import Lab
from claims.recipes import demo, demo_source, lasting
from claims.store import Task
from claims.verdicts import (
    Check,
    Line,
    Part,
    Plot,
    Table,
    bleu_of,
    check_bleu,
    find_larger,
)

TITLE = "Pre-training, then fine-tuning"
CLAIM = """
A model that was pre-trained on monolingual text of both languages, and then learns to translate
from few pairs, translates better than one that starts from random weights; the fewer pairs there
are, the larger the difference.
"""
EXPERIMENT = """
Pre-training: the small Transformer restores noised sentences of the demo language (`objective.kind:
denoising`), English and German ones that are no translations of one another. Then it is trained on
pairs (`training.initialise_from`), as is a new one with the same vocabulary, for the same number of
updates, each with its own learning rate ({tuned:g} and {scratch:g}). BLEU of greedy search on the
test set, of the checkpoint with the best validation BLEU. One seed.
"""
TUNED, SCRATCH = 1e-3, 3e-3
EXPERIMENT = EXPERIMENT.format(tuned=TUNED, scratch=SCRATCH)
WAYS = {
    "pre-trained": (TUNED, "training.initialise_from"),
    "from scratch": (SCRATCH, "vocabulary.path"),
}
"""Learning rate, and the key of the recipe that names the pre-training."""


def measure(lab: Lab) -> dict[str, Any]:
    sizes = lab.choose([1000, 5000, 20_000], [1000, 5000], [200])
    steps = lab.choose(500, 300, 4)
    first = pretraining(lab)
    found = lab.measure({"pre-training": Task("training:trained", {"recipe": first})})

    def task(way: str, size: int) -> Task:
        rate, key = WAYS[way]
        recipe = demo(lab, {
            "data.train": [demo_source("train", size)], "vocabulary": None,
            "training": lasting(steps), "schedule.warmup_steps": max(2, steps // 10),
            "optimizer.learning_rate": rate, "model.dropout": 0.1,
        })  # fmt: skip
        return Task("training:trained", {"recipe": recipe, "uses": {key: first}})

    return {
        "sizes": sizes,
        "pretraining": found["pre-training"],
        "runs": lab.measure_grid(WAYS, sizes, task),
    }


def pretraining(lab: Lab) -> dict[str, Any]:
    """Return the recipe that denoises."""
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


def judge(found: dict[str, Any]) -> Iterator[Part]:
    sizes, runs = found["sizes"], found["runs"]
    bleu = {way: bleu_of(runs[way]) for way in WAYS}
    losses = found["pretraining"]["valid_losses"]
    learned = Check(
        f"pre-training lowered its validation loss ({losses[0]:.2f} to {min(losses):.2f})",
        min(losses) < losses[0],
    )
    rows, gains = [], []
    for at, size in enumerate(sizes):
        one, other = (bleu[way][at] for way in WAYS)
        gains.append(one - other)
        yield find_larger(
            f"pre-training helps before {size:,} pairs, by more than 1 BLEU", [one], [other], 1.0,
            f"BLEU {one:.1f} against {other:.1f}.",
            learned, check_bleu("the better one", max(one, other), 5),
        )  # fmt: skip
        rows.append((f"{size:,}", f"{one:.1f}", f"{other:.1f}",
                     *(f"{runs[way][at]['valid_loss']:.3f}" for way in WAYS)))  # fmt: skip
    yield find_larger(
        "the fewer pairs, the more it helps", [gains[0]], [gains[-1]], 0.0,
        ", ".join(f"{g:+.1f} BLEU at {n:,}" for g, n in zip(gains, sizes, strict=True)) + ".",
        learned, Check(f"several sizes ({len(sizes)})", len(sizes) > 1),
    )  # fmt: skip
    head = ["pairs", *(f"{way}, {what}" for what in ("BLEU", "loss") for way in WAYS)]
    yield Table("Test BLEU and validation loss", head, rows)
    yield Plot("bleu", "Pre-trained or not, against the number of pairs", "pairs", "test BLEU",
               [Line(way, sizes, bleu[way]) for way in WAYS], log_x=True)  # fmt: skip
