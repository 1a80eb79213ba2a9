"""Claim g: how many heads a trained model can do without."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench.harness import divide, summary, time_in_turn

from claims import training
from claims.lab import Lab
from claims.recipes import changed, demo, lasting
from claims.store import Task
from claims.verdicts import (
    Finding,
    Line,
    Part,
    Plot,
    Table,
    check_bleu,
    collect,
    find_larger,
    larger,
)
from mt.checkpoints import run_directory
from mt.config.plugins import plugin
from mt.decoding.types import Engine
from mt.runtime import files
from mt.runtime.device import use_threads

TITLE = "Fewer heads"
CLAIM = """
Many heads of a trained model contribute little: half of them can be removed, and after a little
fine-tuning the model translates as well, in less time.
"""
EXPERIMENT = """
`mt prune` removes heads from every attention of the small Transformer, those with the smallest
gradient, and fine-tunes the rest; the unpruned model is fine-tuned as long, so that fine-tuning is
not the difference. BLEU of greedy search on the test set; speed is of translating it, one thread,
in interleaved rounds.
"""
LOSS = 1.0
"""BLEU that may be lost."""


def measure(lab: Lab) -> dict[str, Any]:
    shares = lab.choose([25, 50, 75], [50, 75], [50])
    steps = lab.choose(200, 100, 4)
    base = demo(lab)
    lab.measure({"as it is, seed 1": Task("training:trained", {"recipe": base})})
    again = changed(base, {
        "training": lasting(steps),
        "optimizer.learning_rate": 0.3 * base["optimizer"]["learning_rate"],
        "schedule.warmup_steps": steps // 10,
    })  # fmt: skip
    uses = {"training.initialise_from": base}
    tasks = {"unpruned": Task("training:trained", {"recipe": again, "uses": uses})}
    (unpruned,) = lab.measure(tasks).values()
    pruned = lab.measure_grid(("at once", "tuned"), shares, lambda name, share: Task(
        "g_heads:pruned", {"recipe": base, "share": share, "steps": steps * (name == "tuned")},
    ))  # fmt: skip
    speed = Task(
        "g_heads:speeds",
        {"recipe": base, "shares": shares, "steps": steps, "rounds": lab.choose(7, 5, 2)},
    )
    whole = unpruned["test"]["test"]
    return {
        "shares": [0, *shares],
        "steps": steps,
        "bleu": [whole, *collect(pruned["tuned"], "bleu")],
        "at_once": [whole, *collect(pruned["at once"], "bleu")],
        "parameters": [unpruned["parameters"], *collect(pruned["at once"], "parameters")],
        "seconds": lab.measure({"speed": speed}, alone=True)["speed"],
    }


# --------------------------------------------------------------------------- measurements


def pruned_run(folder: Path, recipe: dict[str, Any], share: int, steps: int) -> Path:
    """Return the folder of a pruned model."""
    run = training.run_of(folder, recipe)
    return run.with_name(f"{run.name}-pruned-{share}-{steps}")


def pruned(folder: Path, recipe: dict[str, Any], share: int, steps: int) -> dict[str, Any]:
    """Prune a share of the heads, in %, and fine-tune; measure BLEU and parameters."""
    run = training.trained_run(folder, recipe)
    out = pruned_run(folder, recipe, share, steps)
    files.delete(out)  # left over from a killed program
    training.command("prune", run, "--heads", f"{share}%", "--finetune-steps", steps, "-o", out)
    model = run_directory.open_run(out).model()
    return {
        "bleu": training.tests_of(out)["test"],
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def speeds(
    folder: Path, recipe: dict[str, Any], shares: list[int], steps: int, rounds: int
) -> list[list[float]]:
    """Measure the seconds to translate the test set, by share (none first), by round."""
    test = training.recipe_of(recipe).data.test["test"]
    sources, _ = training.texts(plugin("sources", test.kind).read(test))
    runs = [training.run_of(folder, recipe)]
    runs += [pruned_run(folder, recipe, share, steps) for share in shares]
    engines = [training.engine_of(run) for run in runs]
    use_threads(1)

    def translate(engine: Engine) -> None:
        list(engine.translate(sources))

    sides = {str(number): partial(translate, engine) for number, engine in enumerate(engines)}
    return list(time_in_turn(sides, rounds).values())


# -------------------------------------------------------------------------------- verdict


def judge(found: dict[str, Any]) -> Iterator[Part]:
    shares, bleu, seconds, once = (found[key] for key in ("shares", "bleu", "seconds", "at_once"))
    learned = check_bleu("the unpruned model", bleu[0])
    for share, tuned, before in zip(shares[1:], bleu[1:], once[1:], strict=True):
        yield Finding(
            f"without {share} % of the heads at most {LOSS:g} BLEU is lost, after fine-tuning",
            larger([LOSS], [bleu[0] - tuned], 0.0, (learned,)),
            f"BLEU {tuned:.1f} against {bleu[0]:.1f} ({before:.1f} before fine-tuning).",
            (learned,),
        )
    for share, each in zip(shares, seconds, strict=True):
        if share >= 50:
            ratios = divide(seconds[0], each)
            yield find_larger(
                f"without {share} % of the heads translating is faster by more than 3 %",
                ratios, 1.0, 0.03, f"{summary(ratios)} times as fast.",
            )  # fmt: skip
    yield Table(
        "Timings: median over rounds (lowest to highest)",
        ["heads removed, %", "parameters", "BLEU", "BLEU without fine-tuning", "seconds, test set"],
        [(share, f"{size:,}", f"{tuned:.1f}", f"{before:.1f}", summary(times))
         for share, size, tuned, before, times in zip(
             shares, found["parameters"], bleu, once, seconds, strict=True)],
    )  # fmt: skip
    yield Plot(
        "bleu", "BLEU against the share of heads removed", "heads removed, %", "test BLEU",
        [Line(f"after {found['steps']} updates", shares, bleu), Line("at once", shares, once)],
    )  # fmt: skip
    fast = [median(seconds[0]) / median(each) for each in seconds]
    yield Plot(
        "speed", "Speed against the share of heads removed", "heads removed, %", "times as fast",
        [Line("greedy search, one thread", shares, fast)],
    )  # fmt: skip
