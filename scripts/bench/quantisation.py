"""Types of weights measured: size, memory, speed and BLEU of the run itself and of its exports.

    python scripts/bench/quantisation.py RUN --source FILE --reference FILE --rounds 5

The run in fp32 and bf16, and CTranslate2 folders made of it with each type of weights, translate
the same file in turn (A B C ... A B C ...), each time in a process of its own of one worker, so
that its memory can be told. Tables give medians and spread; ratios are medians of the ratios of a
round, to the run in fp32. Standard output is Markdown. Parts are those of decoding.py.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from decoding import System, exported, layout, ratio, spread

from mt.checkpoints import bundle
from mt.evaluation import compare

WEIGHTS = ("float32", "int8", "int8_float32", "bfloat16")
"""Types of the weights of CTranslate2 folders."""


def systems(given: argparse.Namespace) -> list[System]:
    """The run twice, and each export."""
    shape = layout(1, given.cores)
    found = [
        System(f"mt {precision}", "mt", given.run, (*shape, "--precision", precision))
        for precision in ("fp32", "bf16")
    ]
    for weights in WEIGHTS:
        kind = None if weights == "float32" else weights
        folder = exported(given, "ctranslate2", kind)
        found.append(System(f"CTranslate2 {weights}", "mt", folder, shape))
    return found


def table(measured: Sequence[System]) -> None:
    """What was measured, as Markdown."""
    first = measured[0]
    print("| | weights, MB | peak memory, MB | lines/s, median | lowest to highest ", end="")
    print("| ratio | BLEU |\n|---|---|---|---|---|---|---|")
    for each in measured:
        size = compare.weight_bytes(each.model) / 1e6
        print(
            f"| {each.name} | {size:.1f} | {statistics.median(each.peaks):.0f} "
            f"| {statistics.median(each.speeds):.1f} | {spread(each.speeds)} "
            f"| {ratio(each.speeds, first.speeds):.2f} | {each.bleu:.2f} |"
        )


def main() -> int:
    """Measure in turn and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beams", type=int, nargs="+", default=[5, 1])
    parser.add_argument("--work", type=Path, help="where exports are made and kept")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    given.recipe = bundle.read_any_recipe(given.run)
    given.references = given.reference.read_text(encoding="utf-8").splitlines()
    with tempfile.TemporaryDirectory() as temporary:
        given.work = given.work or Path(temporary)
        given.work.mkdir(parents=True, exist_ok=True)
        for beams in given.beams:
            measured = systems(given)
            for _ in range(given.rounds):
                for each in measured:
                    each.measure(given, beams)
            name = "greedy" if beams == 1 else f"beam {beams}"
            print(f"\n{name}, {given.rounds} rounds, {given.cores} threads:\n")
            table(measured)
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
