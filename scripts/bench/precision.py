"""Whether bf16 trains as fp32 does, and what it saves: the same recipe in both, several seeds.

    python scripts/bench/precision.py configs/demo.yaml --steps 120 --seeds 3
    python scripts/bench/precision.py configs/demo.yaml --precisions fp32 bf16 fp16   # on a GPU

Each run is a real `mt train`, in turn. Standard output is two Markdown tables: for each step the
mean loss over the seeds and its standard deviation in each precision, and the difference of the
last from the first; then speed, peak memory, and the loss on the validation corpus at the end, with
the ratio of the last to the first.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import mean, median, pstdev
from typing import Any

import harness


def figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return speed, memory and last losses of a run; the speed leaves out the first report."""
    reports = [row for row in rows if "target_tokens_per_second" in row]
    return {
        "target tokens/s": median(row["target_tokens_per_second"] for row in reports[1:]),
        "peak memory, MB": max(row["peak_memory_bytes"] for row in reports) / 1e6,
        "last training loss": reports[-1]["loss"],
        "validation loss": [row["valid_loss"] for row in rows if "valid_loss" in row][-1],
    }


def main() -> None:
    parser = harness.make_parser(__doc__, recipe=True)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--every", type=int, default=20, help="steps that a loss is the mean of")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    given = parser.parse_args()
    sets = [
        *given.sets, f"training.max_steps={given.steps}", f"training.report_every={given.every}",
        "training.max_epochs=null", "training.validate_every=1000000",
        "training.validate_sentences=1",
    ]  # fmt: skip
    found: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in given.precisions}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, given.seeds + 1):
            for name, runs in found.items():
                own = [*sets, f"runtime.precision={name}", f"training.seed={seed}"]
                runs.append(harness.train(given.config, Path(folder) / f"{name}-{seed}", own)[0])
    first, last = given.precisions[0], given.precisions[-1]
    losses: dict[int, dict[str, list[float]]] = {}
    for name, runs in found.items():
        for row in (row for run in runs for row in run if "loss" in row):
            losses.setdefault(row["step"], {}).setdefault(name, []).append(row["loss"])
    rows = []
    for step, values in sorted(losses.items()):
        cells = [f"{mean(each):.4f} ± {pstdev(each):.4f}" for each in values.values()]
        rows.append((step, *cells, f"{mean(values[last]) - mean(values[first]):+.4f}"))
    print(f"{given.seeds} seeds; loss over the last {given.every} steps, mean and deviation\n")
    print(harness.table(["step", *found, f"{last} - {first}"], rows) + "\n")
    costs = {name: [figures(run) for run in runs] for name, runs in found.items()}
    rows = []
    for key in costs[first][0]:
        values = {name: [run[key] for run in runs] for name, runs in costs.items()}
        cells = [harness.summary(each, ".6g") for each in values.values()]
        rows.append((key, *cells, f"{median(values[last]) / median(values[first]):.3f}"))
    head = ["median, lowest to highest of the seeds", *found, f"{last} / {first}"]
    print(harness.table(head, rows))


if __name__ == "__main__":
    main()
