"""Whether bf16 trains as fp32 does: the same recipe in both, for several seeds, loss by loss.

    python scripts/bench/precision.py configs/demo.yaml --steps 120 --seeds 3

Each run is a real `mt train`. Standard output is a Markdown table: for each step the mean loss
over the seeds and its spread (standard deviation) in both precisions, and their difference.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def losses(config: Path, sets: list[str], run: Path) -> dict[int, float]:
    """The training losses of one run by step."""
    command = [sys.executable, "-m", "mt", "train", str(config), "--run", str(run)]
    for each in sets:
        command += ["--set", each]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


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
    found: dict[str, list[dict[int, float]]] = {"fp32": [], "bf16": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, given.seeds + 1):
            for precision, runs in found.items():
                sets = [*fixed, f"runtime.precision={precision}", f"training.seed={seed}"]
                run = Path(folder) / f"{precision}-{seed}"
                runs.append(losses(given.config, sets, run))
    print(f"{given.seeds} seeds; loss over the last {given.every} steps, mean and deviation\n")
    print("| step | fp32 | bf16 | bf16 - fp32 |")
    print("|---|---|---|---|")
    for step in sorted(found["fp32"][0]):
        values = {name: [run[step] for run in runs] for name, runs in found.items()}
        means = {name: statistics.mean(each) for name, each in values.items()}
        told = [f"{means[n]:.4f} ± {statistics.pstdev(values[n]):.4f}" for n in values]
        print(f"| {step} | {' | '.join(told)} | {means['bf16'] - means['fp32']:+.4f} |")


if __name__ == "__main__":
    main()
