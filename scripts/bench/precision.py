"""Whether bf16 trains as fp32 does, and what it saves: the same recipe in both, several seeds.

    python scripts/bench/precision.py configs/demo.yaml --steps 120 --seeds 3
    python scripts/bench/precision.py configs/demo.yaml --precisions fp32 bf16 fp16   # on a GPU

Each run is a real `mt train`, in turn. Standard output is two Markdown tables: for each step the
mean loss over the seeds and its spread (standard deviation) in each precision, and the difference
of the last from the first; then speed, peak memory, and the loss on the validation corpus at the
end, with the ratio of the last to the first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def trained(config: Path, sets: list[str], run: Path) -> list[dict[str, Any]]:
    """What one run tells of itself, report by report."""
    command = [sys.executable, "-m", "mt", "train", str(config), "--run", str(run)]
    for each in sets:
        command += ["--set", each]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(rows: list[dict[str, Any]]) -> dict[int, float]:
    """The training losses of a run by step."""
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Speed, memory and the last losses of a run; the first report, of a cold start, left out."""
    told = [row for row in rows if "target_tokens_per_second" in row]
    return {
        "target tokens/s": statistics.median(r["target_tokens_per_second"] for r in told[1:]),
        "peak memory, MB": max(row["peak_memory_bytes"] for row in told) / 1e6,
        "last training loss": told[-1]["loss"],
        "validation loss": [row["valid_loss"] for row in rows if "valid_loss" in row][-1],
    }


def main() -> None:
    """Train and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, nargs="?", default=Path("configs/demo.yaml"))
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--every", type=int, default=20, help="steps that a loss is the mean of")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    given = parser.parse_args()
    fixed = [
        *given.sets, f"training.max_steps={given.steps}", f"training.report_every={given.every}",
        "training.max_epochs=null", "training.validate_every=1000000",
        "training.validate_sentences=1",
    ]  # fmt: skip
    found: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in given.precisions}
    first, last = given.precisions[0], given.precisions[-1]
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, given.seeds + 1):
            for precision, runs in found.items():
                sets = [*fixed, f"runtime.precision={precision}", f"training.seed={seed}"]
                run = Path(folder) / f"{precision}-{seed}"
                runs.append(trained(given.config, sets, run))
    print(f"{given.seeds} seeds; loss over the last {given.every} steps, mean and deviation\n")
    columns = " | ".join(found)
    print(f"| step | {columns} | {last} - {first} |")
    print("|---" * (len(found) + 2) + "|")
    for step in sorted(losses(found[first][0])):
        values = {name: [losses(run)[step] for run in runs] for name, runs in found.items()}
        means = {name: statistics.mean(each) for name, each in values.items()}
        told = [f"{means[n]:.4f} ± {statistics.pstdev(values[n]):.4f}" for n in values]
        print(f"| {step} | {' | '.join(told)} | {means[last] - means[first]:+.4f} |")
    print(f"\n| median, lowest to highest of the seeds | {columns} | {last} / {first} |")
    print("|---" * (len(found) + 2) + "|")
    each = {name: [figures(run) for run in runs] for name, runs in found.items()}
    for key in each[first][0]:
        ranges = {name: [run[key] for run in runs] for name, runs in each.items()}
        middle = {name: statistics.median(column) for name, column in ranges.items()}
        told = [f"{middle[n]:.6g} ({min(c):.6g} to {max(c):.6g})" for n, c in ranges.items()]
        print(f"| {key} | {' | '.join(told)} | {middle[last] / middle[first]:.3f} |")


if __name__ == "__main__":
    main()
