"""Claim e: how much data a Transformer needs, and what helps where there is little."""

from __future__ import annotations

import json
from typing import Any

from claims.lab import Lab
from claims.recipes import changed, demo, demo_source, recurrent
from claims.store import Task
from claims.verdicts import Check, Judgement, Line, Plot, Table, compared

TITLE = "Little data: a weak inductive bias"
CLAIM = """
Nothing in a Transformer says that near words belong together, so it must learn that from data:
with few pairs it learns them by heart (the loss on what it was not trained on lies far above that
on what it was), and a recurrent network does better; with many pairs it is the other way round.
Regularisation repairs a part of it.
"""
EXPERIMENT = """
The demo language, from a thousand pairs on, the same vocabulary and number of updates whatever the
size of the corpus: the small Transformer, an LSTM with attention of about as many weights, and the
Transformer with what low-resource recipes use ({regularised}). The gap is between the loss on
validation pairs and on training pairs after the last update (forced, without dropout); BLEU is of
the checkpoint with the best validation BLEU. One seed; what decides are differences of more
than 1 BLEU.
"""
NOTES: tuple[str, ...] = ()
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
    lab.measure({"as it is, seed 1": Task("training:trained", {"recipe": demo(lab)})})
    every = {
        f"{name}, {size:,} pairs": arguments(lab, name, size) for name in MODELS for size in sizes
    }
    trained = lab.measure({key: Task("training:trained", given) for key, given in every.items()})
    pairs = lab.choose(400, 200, 20)
    gaps = lab.measure(
        {key: Task("training:gap", {**given, "pairs": pairs}) for key, given in every.items()}
    )
    return {
        "sizes": sizes,
        "runs": {
            name: [
                {**trained[key], **gaps[key]}
                for key in (f"{name}, {size:,} pairs" for size in sizes)
            ]
            for name in MODELS
        },
    }


def arguments(lab: Lab, name: str, size: int) -> dict[str, Any]:
    """What is to be trained; all have the vocabulary of the small Transformer's own corpus."""
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


def judge(found: dict[str, Any]) -> Judgement:
    sizes, runs = found["sizes"], found["runs"]
    ours, rival, repaired = MODELS
    bleu = {name: [run["test"]["test"] for run in runs[name]] for name in MODELS}
    gap = {name: [run["last_valid"] - run["last_train"] for run in runs[name]] for name in MODELS}
    few, many = f"{sizes[0]:,}", f"{sizes[-1]:,}"

    def reached(names: tuple[str, ...], at: int, least: float) -> Check:
        best = max(bleu[name][at] for name in names)
        return Check(
            f"the better one reached {least:g} BLEU at {sizes[at]:,} pairs ({best:.1f})",
            best >= least,
        )

    def told(values: dict[str, list[float]], at: int, digits: int, *names: str) -> str:
        parts = ", ".join(f"{name} {values[name][at]:.{digits}f}" for name in names)
        return f"At {sizes[at]:,} pairs: {parts}."

    alone = (reached((ours,), -1, 20),)
    # Where there is least data that can be learned from at all.
    small = next((n for n in range(len(sizes)) if max(bleu[m][n] for m in MODELS) >= 5), 0)
    findings = [
        compared(
            f"the gap between validation and training loss is wider at {few} pairs than at {many}",
            [gap[ours][0]], [gap[ours][-1]], 0.5,
            f"Transformer: {gap[ours][0]:.2f} against {gap[ours][-1]:.2f} nats.", alone,
        ),
        compared(
            f"with few pairs ({sizes[small]:,}) the LSTM with attention is better than the "
            "Transformer", [bleu[rival][small]], [bleu[ours][small]], 1.0,
            told(bleu, small, 1, ours, rival), (reached((ours, rival), small, 5),),
        ),
        compared(
            f"with many pairs ({many}) the Transformer is better than the LSTM with attention",
            [bleu[ours][-1]], [bleu[rival][-1]], 1.0, told(bleu, -1, 1, ours, rival),
            (reached((ours, rival), -1, 20),),
        ),
        compared(
            f"regularisation narrows the gap at {few} pairs", [gap[ours][0]], [gap[repaired][0]],
            0.2, told(gap, 0, 2, ours, repaired),
        ),
        compared(
            f"and improves translation with few pairs ({sizes[small]:,})",
            [bleu[repaired][small]], [bleu[ours][small]], 1.0, told(bleu, small, 1, ours, repaired),
            (reached((ours, repaired), small, 5),),
        ),
    ]  # fmt: skip
    return Judgement(findings, tables(found, bleu), plots(sizes, bleu, gap))


def tables(found: dict[str, Any], bleu: dict[str, list[float]]) -> list[Table]:
    rows = [["model", "parameters", "pairs", "training loss", "validation loss", "gap",
             "best validation loss", "test BLEU"]]  # fmt: skip
    for name in MODELS:
        for size, run, score in zip(found["sizes"], found["runs"][name], bleu[name], strict=True):
            gap = run["last_valid"] - run["last_train"]
            cells = (run["last_train"], run["last_valid"], gap, run["valid_loss"])
            rows.append([name, f"{run['parameters']:,}", f"{size:,}",
                         *(f"{value:.2f}" for value in cells), f"{score:.1f}"])  # fmt: skip
    return [Table("After the last update, and of the best checkpoint", rows)]


def plots(
    sizes: list[int], bleu: dict[str, list[float]], gap: dict[str, list[float]]
) -> list[Plot]:
    return [
        Plot("bleu", "BLEU against the size of the corpus", "pairs", "test BLEU",
             [Line(name, sizes, bleu[name]) for name in MODELS], log_x=True),
        Plot("gap", "Validation loss less training loss", "pairs", "nats a token",
             [Line(name, sizes, gap[name]) for name in MODELS], log_x=True),
    ]  # fmt: skip
