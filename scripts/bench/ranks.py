"""Training speed of several processes of one thread beside one process of as many threads.

    python scripts/bench/ranks.py configs/demo.yaml --updates 10 --rounds 3

Both run the real command on the same recipe with the same precision and sizes, in turn. The speed
is in target tokens a second as the run reports them, without padding and without its first updates.
Standard output is a Markdown table.
"""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import harness

WARM_UP = 3


def train(
    config: Path, folder: Path, processes: int, sets: list[str]
) -> tuple[float, dict[str, Any]]:
    """Train in several processes; return target tokens a second, and resolved.json."""
    run = Path(tempfile.mkdtemp(dir=folder)) / "run"
    program = harness.MT
    if processes > 1:
        program = (
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
            str(processes), "-m", "--", "mt",
        )  # fmt: skip
    rows, _ = harness.train(config, run, sets, program, {"OMP_NUM_THREADS": "1"})
    counted = [row for row in rows if "loss" in row and row["step"] > WARM_UP]
    return harness.training_speed(counted), json.loads((run / "resolved.json").read_text())


def main() -> None:
    parser = harness.make_parser(__doc__, recipe=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--updates", type=int, default=10, help="updates that count, of a run")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    count, last = given.processes, WARM_UP + given.updates
    sets = [
        *given.sets, "schedule.kind=constant", "schedule.warmup_steps=0",
        f"training.max_steps={last}", "training.max_epochs=null", "training.average=0",
        "training.report_every=1", f"training.validate_every={last}",
        f"training.save_every={last}", "training.validate_sentences=1",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = partial(train, given.config, Path(folder))
        _, resolved = run(1, [*sets, f"runtime.threads={count}"])  # fills the cache
        sets += [
            f"runtime.precision={resolved['precision']}",
            f"batching.micro_tokens={resolved['micro_tokens']}",
        ]
        one = f"1 process, {count} threads"
        alone = [*sets, "runtime.threads=1"]
        sides = {
            one: partial(run, 1, [*sets, f"runtime.threads={count}"]),
            f"{count} processes (ddp), 1 thread each": partial(run, count, alone),
            f"{count} processes (fsdp), 1 thread each": partial(
                run, count, [*alone, "runtime.sharding=fsdp"]
            ),
        }
        found = harness.run_in_turn(sides, given.rounds)
    speeds = {name: [speed for speed, _ in each] for name, each in found.items()}
    print(f"{resolved['precision']}, torch {resolved['torch']}\n")
    rows = [
        (name, f"{median(each):,.0f}", harness.spread(each),
         f"{harness.ratio(each, speeds[one]):.2f}")
        for name, each in speeds.items()
    ]  # fmt: skip
    head = "side | target tokens/s, median | lowest to highest | ratio, median"
    print(harness.table(head, rows))


if __name__ == "__main__":
    main()
