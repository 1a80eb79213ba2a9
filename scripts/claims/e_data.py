"""Claim e: how much data a Transformer needs, and what helps where there is little."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from claims.lab import Lab
from claims.recipes import changed, demo, demo_source, recurrent
from claims.store import Task
from claims.verdicts import Check, Line, Part, Plot, Table, bleu_of, find_larger

TITLE = "Little data: a weak inductive bias"
CLAIM = """
A Transformer has no built-in knowledge that near words belong together; it must learn that from
data. With few pairs it memorises them (the loss on other pairs is far above that on the training
pairs), and a recurrent network does better; with many pairs it is the other way round.
Regularisation repairs a part of it.
"""
EXPERIMENT = """
The demo language, from a thousand pairs on, the same vocabulary and number of updates for every
size of the corpus: the small Transformer, an LSTM with attention of about as many weights, and the
Transformer with what low-resource recipes use ({regularised}). The gap is between the loss on
validation pairs and on training pairs after the last update (forced, without dropout); BLEU is of
the checkpoint with the best validation BLEU. One seed; only differences of more than 1 BLEU decide.
"""
REGULARISED: dict[str, Any] = {
    "model.dropout": 0.2, "objective.label_smoothing": 0.1,
    "model.word_dropout": {"source": 0.1, "target": 0.1},
}  # fmt: skip
EXPERIMENT = EXPERIMENT.format(
    regularised=", ".join(f"`{key}={json.dumps(value)}`" for key, value in REGULARISED.items())
)
MODELS = ("Transformer", "LSTM with attention", "Transformer, regularised")


def measure(lab: Lab) -> dict[str, Any]:
    sizes = lab.choose([1000, 5000, 20_000, 100_000], [1000, 20_000], [200, 300])
    pairs = lab.choose(400, 200, 20)
    lab.measure({"as it is, seed 1": Task("training:trained", {"recipe": demo(lab)})})
    trained = lab.measure_grid(
        MODELS, sizes, lambda name, size: Task("training:trained", arguments(lab, name, size))
    )
    gaps = lab.measure_grid(
        MODELS, sizes,
        lambda name, size: Task("training:gap", {**arguments(lab, name, size), "pairs": pairs}),
        "gap",
    )  # fmt: skip
    return {
        "sizes": sizes,
        "runs": {
            name: [{**run, **gap} for run, gap in zip(trained[name], gaps[name], strict=True)]
            for name in MODELS
        },
    }


def arguments(lab: Lab, name: str, size: int) -> dict[str, Any]:
    """Return what to train; all have the vocabulary of the small Transformer's own corpus."""
    base = demo(lab)
    recipe = changed(base, {"data.train": [demo_source("train", size)]})
    if name == "Transformer, regularised":
        recipe = changed(recipe, REGULARISED)
    else:
        recipe = recurrent(recipe, name)
    if recipe["data"]["train"] == base["data"]["train"]:
        return {"recipe": recipe}
    return {"recipe": changed(recipe, {"vocabulary": None}), "uses": {"vocabulary.path": base}}


# -------------------------------------------------------------------------------- verdict


def judge(found: dict[str, Any]) -> Iterator[Part]:
    sizes, runs = found["sizes"], found["runs"]
    ours, rival, repaired = MODELS
    bleu = {name: bleu_of(runs[name]) for name in MODELS}
    gap = {name: [run["last_valid"] - run["last_train"] for run in runs[name]] for name in MODELS}
    few, many = f"{sizes[0]:,}", f"{sizes[-1]:,}"

    def better(statement: str, one: str, other: str, at: int, least: float) -> Part:
        """Compare the BLEU of two models at a size, if one of them learned enough."""
        score = max(bleu[one][at], bleu[other][at])
        shown = ", ".join(f"{name} {bleu[name][at]:.1f}" for name in MODELS if name in (one, other))
        learned = f"the better one reached {least:g} BLEU at {sizes[at]:,} pairs ({score:.1f})"
        return find_larger(
            statement, [bleu[one][at]], [bleu[other][at]], 1.0,
            f"At {sizes[at]:,} pairs: {shown}.", Check(learned, score >= least),
        )  # fmt: skip

    # The smallest corpus that can be learned from at all.
    small = next((n for n in range(len(sizes)) if max(bleu[m][n] for m in MODELS) >= 5), 0)
    some = f"with few pairs ({sizes[small]:,})"
    last = bleu[ours][-1]
    yield find_larger(
        f"the gap between validation and training loss is wider at {few} pairs than at {many}",
        [gap[ours][0]], [gap[ours][-1]], 0.5,
        f"Transformer: {gap[ours][0]:.2f} against {gap[ours][-1]:.2f} nats.",
        Check(f"the better one reached 20 BLEU at {many} pairs ({last:.1f})", last >= 20),
    )  # fmt: skip
    yield better(f"{some} the LSTM with attention is better than the Transformer",
                 rival, ours, small, 5)  # fmt: skip
    yield better(f"with many pairs ({many}) the Transformer is better than the LSTM with attention",
                 ours, rival, -1, 20)  # fmt: skip
    yield find_larger(
        f"regularisation narrows the gap at {few} pairs", [gap[ours][0]], [gap[repaired][0]], 0.2,
        f"At {few} pairs: {ours} {gap[ours][0]:.2f}, {repaired} {gap[repaired][0]:.2f}.",
    )  # fmt: skip
    yield better(f"and improves translation {some}", repaired, ours, small, 5)
    rows = []
    for name in MODELS:
        for at, size in enumerate(sizes):
            run = runs[name][at]
            losses = (run["last_train"], run["last_valid"], gap[name][at], run["valid_loss"])
            rows.append((name, f"{run['parameters']:,}", f"{size:,}",
                         *(f"{loss:.2f}" for loss in losses), f"{bleu[name][at]:.1f}"))  # fmt: skip
    head = ["model", "parameters", "pairs", "training loss", "validation loss", "gap",
            "best validation loss", "test BLEU"]  # fmt: skip
    yield Table("After the last update, and of the best checkpoint", head, rows)
    yield Plot("bleu", "BLEU against the size of the corpus", "pairs", "test BLEU",
               [Line(name, sizes, bleu[name]) for name in MODELS], log_x=True)  # fmt: skip
    yield Plot("gap", "Validation loss less training loss", "pairs", "nats a token",
               [Line(name, sizes, gap[name]) for name in MODELS], log_x=True)  # fmt: skip
