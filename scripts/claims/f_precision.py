"""Claim f: what mixed precision saves, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

from bench.harness import divide, summary, time_in_turn
from bench.updates import Updates, first_updates

from claims import training
from claims.growth import peak_growth
from claims.lab import Lab
from claims.recipes import changed, demo
from claims.store import Task
from claims.verdicts import (
    Check,
    Finding,
    Line,
    Part,
    Plot,
    Table,
    bleu_of,
    by_step,
    check_bleu,
    collect,
    find_larger,
    larger,
    over_seeds,
)
from mt.interfaces import Batch
from mt.runtime.device import Precision, cpu_has_bf16, use_threads

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
BOTH: tuple[Precision, ...] = ("fp32", "bf16")
CLOSE = 0.05
"""Losses that differ by less, in nats, are the same."""


def measure(lab: Lab) -> dict[str, Any]:
    seeds = lab.choose([1, 2], [1], [1])
    widths = lab.choose([128, 512], [96, 384], [16])
    rounds, tokens, more = lab.choose((7, 2048, 4096), (5, 1024, 4096), (2, 128, 128))
    recipes = {
        width: changed(demo(lab), {"model.d_model": width, "model.d_ff": 4 * width})
        for width in widths
    }
    trained = lab.measure_grid(BOTH, seeds, lambda precision, seed: Task("training:trained", {
        "recipe": changed(demo(lab), {"runtime.precision": precision, "training.seed": seed}),
    }))  # fmt: skip
    speed = {
        f"speed at {width}": Task(
            "f_precision:speed", {"recipe": recipe, "rounds": rounds, "tokens": tokens}
        )
        for width, recipe in recipes.items()
    }
    memory = {
        precision: Task(
            "f_precision:memory",
            {"recipe": recipes[widths[-1]], "precision": precision, "tokens": more},
        )
        for precision in BOTH
    }
    return {
        "seeds": seeds,
        "widths": widths,
        "has_bf16": cpu_has_bf16(),
        "seconds": list(lab.measure(speed, alone=True).values()),
        "bytes": lab.measure(memory, alone=True),
        "trained": trained,
    }


# --------------------------------------------------------------------------- measurements


def build(recipe: dict[str, Any], precision: Precision, tokens: int) -> tuple[Updates, list[Batch]]:
    """Return the updates of a recipe, and one batch with that many padded tokens."""
    updates, prepared = training.build_updates(recipe, precision)
    config = training.recipe_of(recipe).batching
    return updates, first_updates(prepared.train, config, tokens, 1)[0][:1]


def speed(folder: Path, recipe: dict[str, Any], rounds: int, tokens: int) -> dict[str, list[float]]:
    """Measure the seconds of an update by precision, one for each round."""
    use_threads("auto")
    sides = {}
    for precision in BOTH:
        update, batches = build(recipe, precision, tokens)
        sides[precision] = partial(update, batches)
    return time_in_turn(sides, rounds, least=0.5 if tokens > 512 else 0.0)


def memory(folder: Path, recipe: dict[str, Any], precision: Precision, tokens: int) -> int:
    """Measure the bytes by which a process grows in updates."""
    return peak_growth(update_twice, recipe, precision, tokens)


def update_twice(recipe: dict[str, Any], precision: Precision, tokens: int, small: bool) -> None:
    """Do two updates; small ones are of a narrow model and few tokens."""
    if small:
        recipe, tokens = changed(recipe, {"model.d_model": 16, "model.d_ff": 16}), 128
    update, batches = build(recipe, precision, tokens)
    for _ in range(2):
        update(batches)


# -------------------------------------------------------------------------------- verdict


def judge(found: dict[str, Any]) -> Iterator[Part]:
    trained, widths, grown = found["trained"], found["widths"], found["bytes"]
    losses = {p: collect(trained[p], "valid_loss") for p in BOTH}
    bleu = {p: bleu_of(trained[p]) for p in BOTH}
    learned = check_bleu("fp32", fmean(bleu["fp32"]))
    excess = [b - a for a, b in zip(losses["fp32"], losses["bf16"], strict=True)]
    yield Finding(
        f"the loss in bf16 is at most {CLOSE} nats above that in fp32",
        larger([CLOSE] * len(excess), excess, 0.0, (learned,)),
        f"Loss {over_seeds(losses['bf16'], 3)} against {over_seeds(losses['fp32'], 3)}, "
        f"BLEU {over_seeds(bleu['bf16'])} against {over_seeds(bleu['fp32'])}.",
        (learned,),
    )
    kernels = Check("the processor computes in bf16", found["has_bf16"])
    rows = []
    for width, seconds in zip(widths, found["seconds"], strict=True):
        ratios = divide(seconds["fp32"], seconds["bf16"])
        yield find_larger(
            f"an update of {width} dimensions is faster by more than a tenth", ratios, 1.0, 0.1,
            f"fp32 takes {summary(ratios)} times as long as bf16.", kernels,
        )  # fmt: skip
        sizes = [f"{grown[p] / 1e6:,.0f}" if width == widths[-1] else "" for p in BOTH]
        rows.append((width, *(summary([1000 * s for s in seconds[p]]) for p in BOTH), *sizes))
    ratio = grown["fp32"] / max(1, grown["bf16"])
    yield find_larger(
        "an update needs less memory by more than a tenth", [ratio], 1.0, 0.1,
        f"fp32 takes {ratio:.2f} times as much as bf16.", kernels,
    )  # fmt: skip
    head = ["width", "fp32, ms an update", "bf16, ms an update", "fp32, MB", "bf16, MB"]
    yield Table("Median over rounds (lowest to highest)", head, rows)
    yield Plot(
        "loss", "Training loss in both precisions", "updates", "nats a token",
        [Line(p, trained[p][0]["steps"], list(map(fmean, by_step(trained[p], "losses"))))
         for p in BOTH],
    )  # fmt: skip
    yield Plot(
        "speed", "Speed in both precisions", "width of the model", "updates a second",
        [Line(p, widths, [1 / median(seconds[p]) for seconds in found["seconds"]]) for p in BOTH],
        log_x=True, log_y=True,
    )  # fmt: skip
