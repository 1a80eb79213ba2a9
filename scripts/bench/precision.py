"""Whether bf16 trains as fp32 does, and what it saves: the same recipe in both, several seeds.

    python scripts/bench/precision.py configs/demo.yaml --steps 120 --seeds 3

Each run is a real `mt train`, in turn. Standard output is two Markdown tables: for each step the
mean loss over the seeds and its spread (standard deviation) in both precisions, and their
difference; then speed, peak memory, and the loss on the validation corpus at the end.
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
    given = parser.parse_args()
    fixed = [
        *given.sets, f"training.max_steps={given.steps}", f"training.report_every={given.every}",
        "training.max_epochs=null", "training.validate_every=1000000",
        "training.validate_sentences=1",
    ]  # fmt: skip
    found: dict[str, list[list[dict[str, Any]]]] = {"fp32": [], "bf16": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, given.seeds + 1):
            for precision, runs in found.items():
                sets = [*fixed, f"runtime.precision={precision}", f"training.seed={seed}"]
                run = Path(folder) / f"{precision}-{seed}"
                runs.append(trained(given.config, sets, run))
    print(f"{given.seeds} seeds; loss over the last {given.every} steps, mean and deviation\n")
    print("| step | fp32 | bf16 | bf16 - fp32 |")
    print("|---|---|---|---|")
    for step in sorted(losses(found["fp32"][0])):
        values = {name: [losses(run)[step] for run in runs] for name, runs in found.items()}
        means = {name: statistics.mean(each) for name, each in values.items()}
        told = [f"{means[n]:.4f} ± {statistics.pstdev(values[n]):.4f}" for n in values]
        print(f"| {step} | {' | '.join(told)} | {means['bf16'] - means['fp32']:+.4f} |")
    print("\n| median, lowest to highest of the seeds | fp32 | bf16 | bf16 / fp32 |")
    print("|---|---|---|---|")
    each = {name: [figures(run) for run in runs] for name, runs in found.items()}
    for key in each["fp32"][0]:
        columns = {name: [run[key] for run in runs] for name, runs in each.items()}
        middle = {name: statistics.median(column) for name, column in columns.items()}
        told = [f"{middle[n]:.6g} ({min(c):.6g} to {max(c):.6g})" for n, c in columns.items()]
        print(f"| {key} | {' | '.join(told)} | {middle['bf16'] / middle['fp32']:.3f} |")


if __name__ == "__main__":
    main()
