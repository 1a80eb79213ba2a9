"""Claim g: how many heads a trained model can do without."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from claims import timing, training
from claims.lab import Lab
from claims.recipes import changed, demo, lasting
from claims.store import Task
from claims.verdicts import Check, Finding, Judgement, Line, Plot, Table, compared, larger
from mt.checkpoints import run_directory
from mt.config.plugins import plugin
from mt.runtime import files
from mt.runtime.device import use_threads

TITLE = "Fewer heads"
CLAIM = """
Many heads of a trained model do little: half of them can be taken out, and after a little
fine-tuning the model translates as well, in less time.
"""
EXPERIMENT = """
`mt prune` takes heads out of every attention of the small Transformer, those whose gradient says
that they matter least, and fine-tunes what is left; the unpruned model is fine-tuned as long, so
that fine-tuning itself decides nothing. BLEU of greedy search on the test set; speed is of
translating it, one thread, in interleaved rounds.
"""
NOTES: tuple[str, ...] = ()
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
    for share in shares:
        for updates in (0, steps):
            tasks[f"{share} % of heads, {updates} updates"] = Task(
                "g_heads:pruned", {"recipe": base, "share": share, "steps": updates}
            )
    found = lab.measure(tasks)
    speed = Task(
        "g_heads:speeds",
        {"recipe": base, "shares": shares, "steps": steps, "rounds": lab.choose(7, 5, 2)},
    )
    unpruned = found["unpruned"]
    return {
        "shares": [0, *shares],
        "steps": steps,
        "bleu": [unpruned["test"]["test"],
                 *(found[f"{share} % of heads, {steps} updates"]["bleu"] for share in shares)],
        "at_once": [unpruned["test"]["test"],
                    *(found[f"{share} % of heads, 0 updates"]["bleu"] for share in shares)],
        "parameters": [unpruned["parameters"],
                       *(found[f"{share} % of heads, 0 updates"]["parameters"]
                         for share in shares)],
        "seconds": lab.measure({"speed": speed}, alone=True)["speed"],
    }  # fmt: skip


# --------------------------------------------------------------------------- measurements


def pruned_run(folder: Path, recipe: dict[str, Any], share: int, steps: int) -> Path:
    """Where a pruned model lies."""
    run = training.run_of(folder, recipe)
    return run.with_name(f"{run.name}-pruned-{share}-{steps}")


def pruned(folder: Path, recipe: dict[str, Any], share: int, steps: int) -> dict[str, Any]:
    """Prune a share of the heads, in %, and fine-tune; BLEU and parameters."""
    run = training.trained_run(folder, recipe)
    out = pruned_run(folder, recipe, share, steps)
    files.delete(out)  # what a killed program left half done
    training.command("prune", run, "--heads", f"{share}%", "--finetune-steps", steps, "-o", out)
    model = run_directory.open_run(out).model()
    return {
        "bleu": training.tests_of(out)["test"],
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def speeds(
    folder: Path, recipe: dict[str, Any], shares: list[int], steps: int, rounds: int
) -> list[list[float]]:
    """Seconds of translating the test set, by share (none first), by round."""
    test = training.recipe_of(recipe).data.test["test"]
    sources, _ = training.texts(plugin("sources", test.kind).read(test))
    runs = [training.run_of(folder, recipe)]
    runs += [pruned_run(folder, recipe, share, steps) for share in shares]
    engines = {str(run): training.engine_of(run) for run in runs}
    use_threads(1)
    sides = {
        name: (lambda engine=engine: list(engine.translate(sources)))
        for name, engine in engines.items()
    }
    return list(timing.interleaved(sides, rounds).values())


# -------------------------------------------------------------------------------- verdict


def judge(found: dict[str, Any]) -> Judgement:
    shares, bleu, seconds = found["shares"], found["bleu"], found["seconds"]
    learned = Check(f"the unpruned model reached 20 BLEU ({bleu[0]:.1f})", bleu[0] >= 20)
    findings = []
    for number, share in enumerate(shares[1:], start=1):
        lost = bleu[0] - bleu[number]
        findings.append(
            Finding(
                f"without {share} % of the heads at most {LOSS:g} BLEU is lost, after fine-tuning",
                larger([LOSS], [lost], 0.0, (learned,)),
                f"BLEU {bleu[number]:.1f} against {bleu[0]:.1f} "
                f"({found['at_once'][number]:.1f} before fine-tuning).",
                (learned,),
            )
        )
    for number, share in enumerate(shares[1:], start=1):
        if share < 50:
            continue
        ratios = [a / b for a, b in zip(seconds[0], seconds[number], strict=True)]
        findings.append(
            compared(
                f"without {share} % of the heads translating is faster by more than 3 %",
                ratios, [1.0] * len(ratios), 0.03, f"{timing.told(ratios)} times as fast.",
            )
        )  # fmt: skip
    rows = [["heads removed, %", "parameters", "BLEU", "BLEU without fine-tuning",
             "seconds, test set"]]  # fmt: skip
    for row in zip(shares, found["parameters"], bleu, found["at_once"], seconds, strict=True):
        share, size, tuned, once, times = row
        rows.append([str(share), f"{size:,}", f"{tuned:.1f}", f"{once:.1f}", timing.told(times)])
    fast = [median(seconds[0]) / median(each) for each in seconds]
    plots = [
        Plot("bleu", "BLEU against the share of heads removed", "heads removed, %", "test BLEU",
             [Line(f"after {found['steps']} updates", shares, bleu),
              Line("at once", shares, found["at_once"])]),
        Plot("speed", "Speed against the share of heads removed", "heads removed, %",
             "times as fast", [Line("greedy search, one thread", shares, fast)]),
    ]  # fmt: skip
    return Judgement(
        findings, [Table("Timings: median over rounds (lowest to highest)", rows)], plots
    )
