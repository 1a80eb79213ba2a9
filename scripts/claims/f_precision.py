"""Claim f: what mixed precision saves, and what it costs."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from torch import nn

from claims import timing, training
from claims.lab import Lab
from claims.recipes import changed, demo
from claims.store import Task
from claims.verdicts import (
    Check,
    Finding,
    Judgement,
    Line,
    Plot,
    Table,
    compared,
    larger,
    mean,
    spread,
)
from mt.config.plugins import plugin
from mt.data import batch_sampler, collate
from mt.data.prepare import prepare
from mt.interfaces import Batch, Objective
from mt.runtime.device import Precision, cpu_has_bf16, use_threads
from mt.training.step import ModelWithLoss, accumulate_gradients

TITLE = "Mixed precision"
CLAIM = """
Matrix products in 16 bits, with weights and sums in 32, make training faster and smaller, and the
loss ends where it does in 32 bits.
"""
EXPERIMENT = """
The updates of `mt` in bf16 and in fp32, in interleaved rounds on the same batches, for a narrow and
for a wide Transformer; memory is how much the peak of a fresh process grows in one update of the
wide one. And whole trainings of the small Transformer in both, seed by seed. (fp16 needs a scaled
loss and is meant for GPUs without bf16; a CPU gains nothing by it.)
"""
NOTES: tuple[str, ...] = ()
BOTH: tuple[Precision, ...] = ("fp32", "bf16")
CLOSE = 0.05
"""Losses that differ by less, in nats, are the same."""


def measure(lab: Lab) -> dict[str, Any]:
    seeds = lab.choose([1, 2], [1], [1])
    widths = lab.choose([128, 512], [96, 384], [16])
    speed = {
        f"speed at {width}": Task(
            "f_precision:speed",
            {"recipe": wide(lab, width), "rounds": lab.choose(7, 5, 2),
             "tokens": lab.choose(2048, 1024, 128)},
        )
        for width in widths
    }  # fmt: skip
    memory = {
        precision: Task(
            "f_precision:memory",
            {"recipe": wide(lab, widths[-1]), "precision": precision,
             "tokens": lab.choose(4096, 4096, 128)},
        )
        for precision in BOTH
    }  # fmt: skip
    trained = {
        f"{precision}, seed {seed}": Task(
            "training:trained",
            {"recipe": changed(demo(lab), {"runtime.precision": precision, "training.seed": seed})},
        )
        for precision in BOTH
        for seed in seeds
    }
    runs = lab.measure(trained)
    return {
        "seeds": seeds,
        "widths": widths,
        "has_bf16": cpu_has_bf16(),
        "seconds": list(lab.measure(speed, alone=True).values()),
        "bytes": lab.measure(memory, alone=True),
        "trained": {p: [runs[f"{p}, seed {seed}"] for seed in seeds] for p in BOTH},
    }


def wide(lab: Lab, width: int) -> dict[str, Any]:
    """The recipe with a model of another width."""
    return changed(demo(lab), {"model.d_model": width, "model.d_ff": 4 * width})


# --------------------------------------------------------------------------- measurements


class Updates:
    """The updates of `mt.train` of one recipe in one precision, without what stands around them.

    Args:
        recipe: plain values.
        precision: of products.
        tokens: padded slots of its one batch.
    """

    def __init__(self, recipe: dict[str, Any], precision: Precision, tokens: int) -> None:
        made = training.recipe_of(recipe)
        prepared = prepare(made, lambda line: None)
        torch.manual_seed(1)
        model = plugin("models", made.model.kind).build(made.model, prepared.vocabulary)
        objective = plugin("objectives", made.objective.kind).build(
            made.objective, model, prepared.vocabulary, None
        )
        self.step = ModelWithLoss(model, objective, precision)
        self.optimizer = plugin("optimizers", made.optimizer.kind).build(
            made.optimizer, list(self.step.named_parameters())
        )
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        corpus = prepared.train
        assert corpus is not None
        epoch = batch_sampler.EpochPlan(
            corpus.source_lengths, corpus.target_lengths, made.batching, tokens, 1, 0
        )
        self.batches: list[Batch] = [collate.collate_pairs(corpus, epoch.updates(0)[0][0])]

    def __call__(self) -> None:
        """One update."""
        accumulate_gradients(
            self.step, cast(Objective, self.step.objective), self.batches, self.scaler
        )
        nn.utils.clip_grad_norm_(self.step.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()


def speed(folder: Path, recipe: dict[str, Any], rounds: int, tokens: int) -> dict[str, list[float]]:
    """Seconds of an update by precision, a value a round."""
    use_threads("auto")
    sides = {precision: Updates(recipe, precision, tokens) for precision in BOTH}
    return timing.interleaved(sides, rounds, least=0.5 if tokens > 512 else 0.0)


def memory(folder: Path, recipe: dict[str, Any], precision: Precision, tokens: int) -> int:
    """Bytes by which a process grows in updates."""
    return timing.peak(some_updates, recipe, precision, tokens)


def some_updates(recipe: dict[str, Any], precision: Precision, tokens: int, small: bool) -> None:
    """Two updates; a small one is of a narrow model and few tokens."""
    if small:
        narrow = changed(recipe, {"model.d_model": 16, "model.d_ff": 16})
        Updates(narrow, precision, 128)()
        return
    updates = Updates(recipe, precision, tokens)
    updates()
    updates()


# -------------------------------------------------------------------------------- verdict


def judge(found: dict[str, Any]) -> Judgement:
    trained = found["trained"]
    losses = {p: [each["valid_loss"] for each in trained[p]] for p in BOTH}
    bleu = {p: [each["test"]["test"] for each in trained[p]] for p in BOTH}
    learned = Check(f"fp32 reached 20 BLEU ({mean(bleu['fp32']):.1f})", mean(bleu["fp32"]) >= 20)
    away = [b - a for a, b in zip(losses["fp32"], losses["bf16"], strict=True)]
    findings = [
        Finding(
            f"the loss in bf16 is at most {CLOSE} nats above that in fp32",
            larger([CLOSE] * len(away), away, 0.0, (learned,)),
            f"Loss {spread(losses['bf16'], 3)} against {spread(losses['fp32'], 3)}, "
            f"BLEU {spread(bleu['bf16'])} against {spread(bleu['fp32'])}.",
            (learned,),
        )
    ]
    kernels = Check("the processor computes in bf16", found["has_bf16"])
    for width, seconds in zip(found["widths"], found["seconds"], strict=True):
        ratios = [a / b for a, b in zip(seconds["fp32"], seconds["bf16"], strict=True)]
        findings.append(
            compared(
                f"an update of {width} dimensions is faster by more than a tenth",
                ratios, [1.0] * len(ratios), 0.1,
                f"fp32 takes {timing.told(ratios)} times as long as bf16.", (kernels,),
            )
        )  # fmt: skip
    grown = found["bytes"]
    ratio = grown["fp32"] / max(1, grown["bf16"])
    findings.append(
        compared(
            "an update needs less memory by more than a tenth", [ratio], [1.0], 0.1,
            f"fp32 takes {ratio:.2f} times as much as bf16.", (kernels,),
        )
    )  # fmt: skip
    rows = [["width", "fp32, ms an update", "bf16, ms an update", "fp32, MB", "bf16, MB"]]
    for width, seconds in zip(found["widths"], found["seconds"], strict=True):
        row = [str(width)] + [timing.told([1000 * s for s in seconds[p]]) for p in BOTH]
        last = width == found["widths"][-1]
        rows.append(row + [f"{grown[p] / 1e6:,.0f}" if last else "" for p in BOTH])
    curves = [
        Line(p, trained[p][0]["steps"],
             [mean(y) for y in zip(*(each["losses"] for each in trained[p]), strict=True)])
        for p in BOTH
    ]  # fmt: skip
    speeds = [
        Line(p, found["widths"], [1 / median(seconds[p]) for seconds in found["seconds"]])
        for p in BOTH
    ]
    plots = [
        Plot("loss", "Training loss in both precisions", "updates", "nats a token", curves),
        Plot("speed", "Speed in both precisions", "width of the model", "updates a second",
             speeds, log_x=True, log_y=True),
    ]  # fmt: skip
    return Judgement(findings, [Table("Median over rounds (lowest to highest)", rows)], plots)
