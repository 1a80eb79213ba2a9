"""What training costs against the size of the corpus, and against the length of the sentences.

    python scripts/bench/scaling.py            # about ten minutes on two cores
    python scripts/bench/scaling.py --quick    # a smoke test of the same; its figures mean nothing

Corpus: 1 to 100 times 2,000 pairs of the `demo` source, each size from an empty cache:
`mt prepare`, then `mt train` for one whole epoch of a small model. The times are fitted to a line.
Then the speed of training at the smallest and at the largest size, the same number of updates, in
turn.
Length: sentences of 32 to 2,048 words of a synthetic vocabulary, the same number of tokens in each
update at every length, in turn.

Every figure is of real commands in processes of their own. Memory is the peak of what a process and
those below it do not share with others. Prints Markdown.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import harness
import yaml
from harness import MT, ratio, spread, summary

from mt.config import recipe
from mt.data import batch_sampler
from mt.data.prepare import prepare
from mt.training.autotune import MAX_CPU_TOKENS

WARM_UP = 0.25
"""The share of the updates that does not count."""


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


def make_recipe(train: dict[str, Any], valid: dict[str, Any], width: int, layers: int) -> dict:
    """Return a recipe for a model of a width and of as many layers on either side."""
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


def measure_speed(folder: Path, updates: int) -> tuple[float, float]:
    """Return the target tokens a second after the warm-up of a folder's recipe, and the peak MB."""
    harness.say(f"{folder.name}: {updates} updates")
    run = Path(tempfile.mkdtemp(dir=folder)) / "run"
    rows, finished = harness.train(
        folder / "recipe.yaml", run,
        [f"training.max_steps={updates}", "training.max_epochs=null"],
        variables={"MT_CACHE": str(folder / "cache")}, measure=harness.written, every=0.1,
    )  # fmt: skip
    rows = [row for row in rows if "target_tokens_per_second" in row]
    return harness.training_speed(rows[int(WARM_UP * len(rows)) :]), finished.peak


# ---------------------------------------------------------------------------------- corpus


@dataclass
class Size:
    """What a corpus of some pairs costs."""

    pairs: int
    folder: Path
    tokens: int
    preparing: float
    planning: float
    epoch: float
    preparing_peak: float
    epoch_peak: float

    @property
    def whole(self) -> float:
        """Seconds from nothing to the end of one epoch."""
        return self.preparing + self.epoch


def measure_size(pairs: int, folder: Path) -> Size:
    """Prepare pairs from an empty cache, plan an epoch, and train one."""
    harness.say(f"{pairs:,} pairs")
    folder.mkdir()
    train, valid = (
        {"kind": "demo", "split": split, "size": size, "seed": 1}
        for split, size in (("train", pairs), ("valid", 50))
    )
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(make_recipe(train, valid, width=64, layers=1)), "utf-8")
    watched: dict[str, Any] = {"measure": harness.unshared, "every": 0.1}
    variables = {"MT_CACHE": str(folder / "cache")}
    prepared = harness.run([*MT, "prepare", path], variables, **watched)
    planning, tokens = time_planning(folder)
    sets = ["training.report_every=20"]
    _, trained = harness.train(path, folder / "epoch", sets, variables=variables, **watched)
    return Size(
        pairs, folder, tokens, prepared.seconds, planning, trained.seconds, prepared.peak,
        trained.peak,
    )  # fmt: skip


def time_planning(folder: Path) -> tuple[float, int]:
    """Return the seconds to plan an epoch of the prepared corpus, and its target tokens."""
    os.environ["MT_CACHE"] = str(folder / "cache")
    settings, _ = recipe.load(folder / "recipe.yaml")
    corpus = prepare(settings, lambda line: None).train
    seconds = []
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
        seconds.append(time.perf_counter() - began)
    return median(seconds), int(corpus.target_lengths.sum())


def measure_corpus(plan: Plan, base: Path) -> None:
    """Measure each size, then the speeds in turn, and print the tables."""
    sizes = [measure_size(plan.pairs * times, base / f"pairs-{times}") for times in plan.times]
    small, large = sizes[0], sizes[-1]
    found = harness.run_in_turn(
        {f"{each.pairs:,}": partial(measure_speed, each.folder, plan.updates)
         for each in (small, large)},
        plan.rounds,
    )  # fmt: skip
    rows = [
        (f"{each.pairs:,}", f"{each.tokens:,}", f"{each.preparing:.1f}", f"{each.planning:.3f}",
         f"{each.epoch:.1f}", f"{each.whole:.1f}", f"{each.preparing_peak:,.0f}",
         f"{each.epoch_peak:,.0f}")
        for each in sizes
    ]  # fmt: skip
    head = (
        "pairs | target tokens | prepare, s | plan an epoch, s | train one epoch, s | all, s | "
        "peak MB preparing | peak MB training"
    )
    print(f"### Corpus size\n\n{harness.table(head, rows, right=True)}")
    print("\nFitted to a line over the pairs (start-up is the part that does not grow):\n")
    rows = []
    for name in ("preparing", "planning", "epoch", "whole"):
        constant, slope, fit = harness.fit_line(
            [size.pairs for size in sizes], [getattr(size, name) for size in sizes]
        )
        rows.append((name, f"{constant:.2f}", f"{slope * 1e6:.1f}", f"{fit:.5f}"))
    head = "cost | seconds that do not grow | seconds a million pairs | R^2"
    print(harness.table(head, rows, right=True))
    print(f"\n{plan.updates} updates at either size, {plan.rounds} rounds in turn:\n")
    speeds, peaks = ([[one[at] for one in each] for each in found.values()] for at in (0, 1))
    rows = [
        (pairs, f"{median(each):,.0f}", spread(each))
        for pairs, each in zip(found, speeds, strict=True)
    ]
    print(harness.table("pairs | target tokens/s, median | lowest to highest", rows, right=True))
    times = f"{large.pairs // small.pairs}x against 1x"
    print(f"\n- tokens/s, {times}: {summary(harness.divide(*speeds[::-1]), '.3f')}")
    memory = {
        f"peak memory but for mapped pages, {plan.updates} updates": [
            median(each) for each in peaks
        ],
        "peak memory, preparing": [small.preparing_peak, large.preparing_peak],
        "peak memory, epoch": [small.epoch_peak, large.epoch_peak],
    }
    for name, (one, other) in memory.items():
        print(f"- {name}, {times}: {other / one:.3f} ({other - one:,.0f} MB more)")


# ---------------------------------------------------------------------------------- length


def write_words(path: Path, lines: int, words: int, seed: int) -> None:
    """Write lines of words that are drawn from a thousand."""
    draw = random.Random(seed)
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(lines):
            file.write(" ".join(f"w{draw.randrange(1000)}" for _ in range(words)) + "\n")


def write_length(folder: Path, length: int, longest: int, tokens: int) -> None:
    """Write the texts and the recipe of a length; with its end a sentence has `length` tokens."""
    folder.mkdir()
    train, valid = {"kind": "text"}, {"kind": "text"}
    for seed, side in enumerate(("source", "target")):
        train[side], valid[side] = str(folder / f"train.{side}"), str(folder / f"valid.{side}")
        write_words(Path(train[side]), 4 * tokens // length, length - 1, seed)
        write_words(Path(valid[side]), 2, 3, seed)
    value = make_recipe(train, valid, width=128, layers=2)
    value["vocabulary"] = {"kind": "whitespace", "size": 2000}
    value["data"]["max_length"] = longest
    value["batching"] = {"tokens": tokens, "micro_tokens": 2 * longest}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(value), encoding="utf-8")


def measure_lengths(plan: Plan, base: Path) -> None:
    """Measure each length in turn and print the table."""
    longest = max(plan.lengths)
    tokens = 2 * longest  # of an update; a pair of the longest sides is half of it
    sides = {}
    for length in plan.lengths:
        folder = base / f"length-{length}"
        write_length(folder, length, longest, tokens)
        sides[f"{length:,}"] = partial(measure_speed, folder, max(4, plan.updates // 16))
    rounds = min(plan.rounds, 3)
    found = harness.run_in_turn(sides, rounds)
    speeds = {length: [speed for speed, _ in each] for length, each in found.items()}
    first = next(iter(speeds.values()))
    rows = [
        (length, f"{median(each):,.0f}", spread(each), f"{ratio(each, first):.2f}",
         f"{max(peak for _, peak in found[length]):,.0f}")
        for length, each in speeds.items()
    ]  # fmt: skip
    print("\n### Sequence length\n")
    print(f"{tokens:,} target tokens an update at every length, {rounds} rounds in turn:\n")
    head = "length | target tokens/s, median | lowest to highest | against the shortest | peak MB"
    print(harness.table(head, rows, right=True))


def main() -> None:
    parser = harness.make_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--only", choices=["corpus", "length"], help="one of the two")
    given = parser.parse_args()
    plan = QUICK if given.quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        if given.only != "length":
            measure_corpus(plan, Path(folder))
        if given.only != "corpus":
            measure_lengths(plan, Path(folder))


if __name__ == "__main__":
    main()
