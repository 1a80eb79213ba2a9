"""Types of weights: size, memory, speed and BLEU of the run itself and of its exports.

    python scripts/bench/quantisation.py RUN --source FILE --reference FILE --rounds 5

The run in fp32 and bf16, and CTranslate2 folders made from it with each type of weights, translate
the same file in turn, each time in one process of its own, so that its memory is its own. Tables
give medians and spread; ratios are medians of the ratios of a round, to the run in fp32. Standard
output is Markdown.
"""

from __future__ import annotations

import argparse
import sys
from statistics import median

import harness
from decoding import System, export, layout, make_parser, measure_in_turn, work_folder

from mt.evaluation import compare

WEIGHTS = ("float32", "int8", "int8_float32", "bfloat16")
"""Types of the weights of CTranslate2 folders."""


def make_systems(given: argparse.Namespace) -> list[System]:
    """Return the run twice, and each export."""
    shape = layout(1, given.cores)
    systems = [
        System(f"mt {precision}", "mt", given.run, (*shape, "--precision", precision))
        for precision in ("fp32", "bf16")
    ]
    for weights in WEIGHTS:
        folder = export(given, "ctranslate2", None if weights == "float32" else weights)
        systems.append(System(f"CTranslate2 {weights}", "mt", folder, shape))
    return systems


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--beams", type=int, nargs="+", default=[5, 1])
    given = parser.parse_args()
    head = " | weights, MB | peak memory, MB | lines/s, median | lowest to highest | ratio | BLEU"
    with work_folder(given):
        for beams in given.beams:
            first, *_ = systems = make_systems(given)
            measure_in_turn(systems, given, beams)
            rows = [
                (each.name, f"{compare.weight_bytes(each.model) / 1e6:.1f}",
                 f"{median(each.peaks):.0f}", f"{median(each.speeds):.1f}",
                 harness.spread(each.speeds, ".1f"),
                 f"{harness.ratio(each.speeds, first.speeds):.2f}", f"{each.bleu:.2f}")
                for each in systems
            ]  # fmt: skip
            print(f", {given.cores} threads:\n\n{harness.table(head, rows)}")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
