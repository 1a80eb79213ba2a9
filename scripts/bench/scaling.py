"""What training costs against the size of the corpus, and against the length of the sentences.

    python scripts/bench/scaling.py            # about ten minutes on two cores
    python scripts/bench/scaling.py --quick    # a smoke test of the same; its figures mean nothing

Corpus: 1 to 100 times 2,000 pairs of the `demo` source, each size from an empty cache:
`mt prepare`, then `mt train` for one whole epoch of a small model. The times are fitted to a line.
Then the speed of training at the smallest and at the largest size, the same number of updates, in
turn.
Length: sentences of 32 to 2,048 words of a synthetic vocabulary, the same number of tokens in each
update whatever the length, in turn.

Every figure is of real commands in processes of their own. Memory is the peak of what a process and
those below it do not share with others. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import memory
import numpy as np
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(1, str(ROOT))  # mt of this checkout
WARM_UP = 0.25  # the share of updates that is not counted


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    pairs: int
    times: tuple[int, ...]
    updates: int
    """Of the comparison of speeds; of each length a sixteenth of them."""
    rounds: int
    lengths: tuple[int, ...]


FULL = Plan(2000, (1, 3, 10, 30, 100), 160, 5, (32, 64, 128, 256, 512, 1024, 2048))
QUICK = Plan(200, (1, 3, 10), 12, 1, (32, 256))


# -------------------------------------------------------------------------------- commands


def recipe_of(train: dict[str, Any], valid: dict[str, Any], width: int, layers: int) -> dict:
    """A recipe for a model of a width and of as many layers on either side."""
    return {
        "languages": {"source": "en", "target": "de"},
        "data": {"train": [train], "valid": valid, "drop_overlap": False},
        "vocabulary": {"size": 1000},
        "model": {
            "kind": "transformer", "d_model": width, "n_heads": 2, "d_ff": 4 * width,
            "encoder_layers": layers, "decoder_layers": layers,
        },
        "optimizer": {"kind": "adamw", "learning_rate": 1e-3},
        "schedule": {"kind": "constant", "warmup_steps": 0},
        "training": {"max_epochs": 1, "report_every": 1, "samples": 0, "validate_sentences": 1,
                     "validate_every": 10**6, "save_every": 10**6},
        "runtime": {"device": "cpu", "precision": "fp32"},
        "search": {"kind": "greedy", "max_length_extra": 1},
    }  # fmt: skip


def demo(pairs: int, split: str = "train") -> dict[str, Any]:
    return {"kind": "demo", "split": split, "size": pairs, "seed": 1}


def run(
    folder: Path, command: str, *arguments: str, measure: Callable[[int], int] = memory.unshared
) -> tuple[float, float]:
    """The seconds and the peak of unshared MB of an `mt` command on a folder's recipe."""
    environment = {**os.environ, "MT_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "mt", command, str(folder / "recipe.yaml"), *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    with memory.Watch(child, measure, 0.1) as watch:
        told, _ = child.communicate()
    if child.returncode:
        raise SystemExit(f"mt {command} failed ({child.returncode}):\n{told}")
    return time.perf_counter() - began, watch.peak


def speed(folder: Path, number: int, updates: int) -> tuple[float, float]:
    """Real target tokens a second after the warm-up, and the peak MB, of so many updates."""
    name = folder / f"run-{number}"
    sets = ("--set", f"training.max_steps={updates}", "--set", "training.max_epochs=null")
    _, peak = run(folder, "train", "--run", str(name), *sets, measure=memory.own)
    lines = (name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "target_tokens_per_second" in row]
    rows = rows[int(WARM_UP * len(rows)) :]
    seconds = sum(row["target_tokens"] / row["target_tokens_per_second"] for row in rows)
    return sum(row["target_tokens"] for row in rows) / seconds, peak


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------- corpus


@dataclass
class Size:
    """What a corpus of some pairs cost."""

    pairs: int
    folder: Path
    preparing: float = 0.0
    planning: float = 0.0
    epoch: float = 0.0
    tokens: int = 0
    preparing_peak: float = 0.0
    epoch_peak: float = 0.0
    speeds: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)
    """MB that a run of a fixed number of updates wrote itself."""

    @property
    def whole(self) -> float:
        """Seconds from nothing to the end of one epoch."""
        return self.preparing + self.epoch


def measure_corpus(plan: Plan, base: Path) -> None:
    """Measure each size, then the speeds in turn, and print the tables."""
    sizes = []
    for times in plan.times:
        size = Size(plan.pairs * times, base / f"pairs-{times}")
        say(f"{size.pairs:,} pairs")
        size.folder.mkdir()
        recipe = recipe_of(demo(size.pairs), demo(50, "valid"), width=64, layers=1)
        (size.folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        size.preparing, size.preparing_peak = run(size.folder, "prepare")
        size.planning, size.tokens = time_planning(size.folder)
        epoch = ("--run", str(size.folder / "epoch"), "--set", "training.report_every=20")
        size.epoch, size.epoch_peak = run(size.folder, "train", *epoch)
        sizes.append(size)
    ends = (sizes[0], sizes[-1])
    for number in range(plan.rounds):
        for size in ends:
            say(f"round {number + 1} of {plan.rounds}: {size.pairs:,} pairs")
            tokens, peak = speed(size.folder, number, plan.updates)
            size.speeds.append(tokens)
            size.peaks.append(peak)
    print_sizes(sizes)
    print_ends(*ends, plan)


def time_planning(folder: Path) -> tuple[float, int]:
    """The seconds that planning an epoch of the prepared corpus takes, and its target tokens."""
    from mt.config import recipe
    from mt.data import batch_sampler
    from mt.data.prepare import prepare
    from mt.training.autotune import MAX_CPU_TOKENS

    os.environ["MT_CACHE"] = str(folder / "cache")
    settings, _ = recipe.load(folder / "recipe.yaml")
    corpus = prepare(settings, lambda line: None).train
    took = []
    for epoch in range(3):
        began = time.perf_counter()
        planned = batch_sampler.EpochPlan(
            corpus.source_lengths,
            corpus.target_lengths,
            settings.batching,
            MAX_CPU_TOKENS,
            1,
            epoch,
        )
        for window in range(len(planned.windows)):
            planned.updates(window)
        took.append(time.perf_counter() - began)
    return statistics.median(took), int(corpus.target_lengths.sum())


def print_sizes(sizes: Sequence[Size]) -> None:
    print("### Corpus size\n")
    print("| pairs | target tokens | prepare, s | plan an epoch, s | train one epoch, s | "
          "all, s | peak MB preparing | peak MB training |")  # fmt: skip
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for size in sizes:
        print(f"| {size.pairs:,} | {size.tokens:,} | {size.preparing:.1f} | {size.planning:.3f} | "
              f"{size.epoch:.1f} | {size.whole:.1f} | {size.preparing_peak:,.0f} | "
              f"{size.epoch_peak:,.0f} |")  # fmt: skip
    print("\nFitted to a line over the pairs (start-up is the part that does not grow):\n")
    print(
        "| cost | seconds that do not grow | seconds a million pairs | R^2 |\n|---|---:|---:|---:|"
    )
    for name in ("preparing", "planning", "epoch", "whole"):
        constant, slope, fit = fitted(
            [size.pairs for size in sizes], [getattr(size, name) for size in sizes]
        )
        print(f"| {name} | {constant:.2f} | {slope * 1e6:.1f} | {fit:.5f} |")


def fitted(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """The line of least squares through some points: constant, slope, R^2."""
    slope, constant = np.polyfit(x, y, 1)
    left = np.asarray(y) - (constant + slope * np.asarray(x))
    return float(constant), float(slope), float(1 - left.var() / np.var(y))


def print_ends(small: Size, large: Size, plan: Plan) -> None:
    ratio = [b / a for a, b in zip(small.speeds, large.speeds, strict=True)]
    times = large.pairs // small.pairs
    print(f"\n{plan.updates} updates at either size, {plan.rounds} rounds in turn:\n")
    print("| pairs | target tokens/s, median | lowest to highest |\n|---:|---:|---:|")
    for size in (small, large):
        print(f"| {size.pairs:,} | {statistics.median(size.speeds):,.0f} | {spread(size.speeds)} |")
    print(f"\n- tokens/s, {times}x against 1x: {statistics.median(ratio):.3f} "
          f"({min(ratio):.3f} to {max(ratio):.3f})")  # fmt: skip
    owns = [statistics.median(size.peaks) for size in (small, large)]
    print(f"- peak memory but for mapped pages, {plan.updates} updates, {times}x against 1x: "
          f"{owns[1] / owns[0]:.3f} ({owns[1] - owns[0]:,.0f} MB more)")  # fmt: skip
    for name in ("preparing", "epoch"):
        peaks = [getattr(size, f"{name}_peak") for size in (small, large)]
        print(f"- peak memory, {name}, {times}x against 1x: {peaks[1] / peaks[0]:.2f} "
              f"({peaks[1] - peaks[0]:,.0f} MB more)")  # fmt: skip


def spread(values: Sequence[float]) -> str:
    return f"{min(values):,.0f} to {max(values):,.0f}"


# ---------------------------------------------------------------------------------- length


def write_words(path: Path, lines: int, words: int, seed: int) -> None:
    """Lines of so many words, drawn from a thousand."""
    draw = random.Random(seed)
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(lines):
            file.write(" ".join(f"w{draw.randrange(1000)}" for _ in range(words)) + "\n")


def measure_lengths(plan: Plan, base: Path) -> None:
    """Measure each length in turn and print the table."""
    longest = max(plan.lengths)
    tokens = 2 * longest  # of an update; a pair of the longest sides is half of it
    folders = [base / f"length-{length}" for length in plan.lengths]
    for length, folder in zip(plan.lengths, folders, strict=True):
        write_length(folder, length, longest, tokens)
    found: dict[int, list[tuple[float, float]]] = {length: [] for length in plan.lengths}
    rounds = min(plan.rounds, 3)
    for number in range(rounds):
        for length, folder in zip(plan.lengths, folders, strict=True):
            say(f"round {number + 1} of {rounds}: length {length:,}")
            found[length].append(speed(folder, number, max(4, plan.updates // 16)))
    print("\n### Sequence length\n")
    print(f"{tokens:,} target tokens an update at every length, {rounds} rounds in turn:\n")
    print("| length | target tokens/s, median | lowest to highest | against the shortest | "
          "peak MB |\n|---:|---:|---:|---:|---:|")  # fmt: skip
    first = [one for one, _ in found[plan.lengths[0]]]
    for length, measured in found.items():
        speeds = [one for one, _ in measured]
        ratio = statistics.median(a / b for a, b in zip(speeds, first, strict=True))
        peak = max(peak for _, peak in measured)
        print(f"| {length:,} | {statistics.median(speeds):,.0f} | {spread(speeds)} | {ratio:.2f} | "
              f"{peak:,.0f} |")  # fmt: skip


def write_length(folder: Path, length: int, longest: int, tokens: int) -> None:
    """The texts and the recipe of a length; with its end a sentence has `length` tokens."""
    folder.mkdir()
    for seed, side in enumerate(("source", "target")):
        write_words(folder / f"train.{side}", 4 * tokens // length, length - 1, seed)
        write_words(folder / f"valid.{side}", 2, 3, seed)

    def corpus(name: str) -> dict[str, str]:
        sides = {side: str(folder / f"{name}.{side}") for side in ("source", "target")}
        return {"kind": "text", **sides}

    recipe = recipe_of(corpus("train"), corpus("valid"), width=128, layers=2)
    recipe["vocabulary"] = {"kind": "whitespace", "size": 2000}
    recipe["data"]["max_length"] = longest
    recipe["batching"] = {"tokens": tokens, "micro_tokens": 2 * longest}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--only", choices=["corpus", "length"], help="one of the two")
    given = parser.parse_args()
    plan = QUICK if given.quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        if given.only != "length":
            measure_corpus(plan, Path(folder))
        if given.only != "corpus":
            measure_lengths(plan, Path(folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
