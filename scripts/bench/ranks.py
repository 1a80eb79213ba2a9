"""Training speed of several processes of one thread beside one process of as many threads.

    python scripts/bench/ranks.py configs/demo.yaml --updates 10 --rounds 3

Both run the real command on the same recipe with the same precision and sizes, in turn. What
counts are real target tokens a second as the run reports them, without its first updates.
Standard output is a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WARMUP = 3


class Bench:
    """What all runs have in common."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.given, self.folder, self.count = given, folder, 0
        last = WARMUP + given.updates
        self.sets = [
            *given.sets, "schedule.kind=constant", "schedule.warmup_steps=0",
            f"training.max_steps={last}", "training.max_epochs=null", "training.average=0",
            "training.report_every=1", f"training.validate_every={last}",
            f"training.save_every={last}", "training.validate_sentences=1",
        ]  # fmt: skip

    def run(self, processes: int, *sets: str) -> tuple[float, dict[str, Any]]:
        """Train; target tokens a second, and what the run resolved."""
        self.count += 1
        run = self.folder / f"run-{self.count}"
        launcher = ["-m", "mt"]
        if processes > 1:
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
            launcher += [str(processes), "-m", "--", "mt"]
        command = [sys.executable, *launcher, "train", str(self.given.config), "--run", str(run)]
        command += [part for each in (*self.sets, *sets) for part in ("--set", each)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        counted = [line for line in lines if "loss" in line and line["step"] > WARMUP]
        tokens = sum(line["target_tokens"] for line in counted)
        seconds = sum(line["target_tokens"] / line["target_tokens_per_second"] for line in counted)
        return tokens / seconds, json.loads((run / "resolved.json").read_text())


def main() -> None:
    """Time the sides in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, nargs="?", default=Path("configs/demo.yaml"))
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--updates", type=int, default=10, help="updates that count, of a run")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given, Path(folder))
        _, resolved = bench.run(1, f"runtime.threads={given.processes}")  # fills the cache
        same = [f"{k}={resolved[n]}" for k, n in (
            ("runtime.precision", "precision"), ("batching.micro_tokens", "micro_tokens"),
        )]  # fmt: skip
        one = f"1 process, {given.processes} threads"
        sides = {
            one: (1, [*same, f"runtime.threads={given.processes}"]),
            f"{given.processes} processes (ddp), 1 thread each": (
                given.processes, [*same, "runtime.threads=1"],
            ),
            f"{given.processes} processes (fsdp), 1 thread each": (
                given.processes, [*same, "runtime.threads=1", "runtime.sharding=fsdp"],
            ),
        }  # fmt: skip
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(given.rounds):
            for name, (processes, sets) in sides.items():
                speeds[name].append(bench.run(processes, *sets)[0])
    print(f"{resolved['precision']}, torch {resolved['torch']}\n")
    print("| side | target tokens/s, median | lowest to highest | ratio, median |")
    print("|---|---|---|---|")
    for name, found in speeds.items():
        ratio = statistics.median(a / b for a, b in zip(found, speeds[one], strict=True))
        spread = f"{min(found):,.0f} to {max(found):,.0f}"
        print(f"| {name} | {statistics.median(found):,.0f} | {spread} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
