"""The time from the command to a trained model, by stage: part of gpu_check.py.

A process of its own trains for a while with the parts of `mt train`, whose calls are timed.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BEGAN = time.time()

if __name__ != "__main__":
    from bench.harness import table, table_row

STAGES = ("import", "prepare", "device", "autotune", "capture", "train", "validate", "save")


def measure(recipe: str, quick: bool) -> dict[str, dict[str, float]]:
    """Train twice, with a cold and a warm cache; print and return the seconds of each stage."""
    found = {}
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "recipe.yaml"
        path.write_text(recipe, encoding="utf-8")
        print("\n" + table("cache | " + " | ".join(STAGES) + " | in all, from the command"))
        for which in ("cold", "warm"):
            began = time.time()
            command = [sys.executable, __file__, str(path), str(Path(place) / which)]
            command += [str(Path(place) / "cache"), str(5 if quick else 500)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"start: training failed: {done.stderr.strip().splitlines()[-1:]}")
                return {}
            seconds = json.loads(done.stdout.splitlines()[-1]) | {"all": time.time() - began}
            print(table_row((which, *(f"{seconds[each]:.1f}" for each in (*STAGES, "all")))))
            found[which] = seconds
    return found


def _train_and_time(path: Path, run: Path, steps: int) -> dict[str, float]:
    """Train and return the seconds of each stage; `train` is what no other stage has."""
    seconds = dict.fromkeys(STAGES, 0.0)

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **more: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **more)
            finally:
                seconds[stage] += time.perf_counter() - began

        return call

    from mt.config import recipe
    from mt.runtime.cuda_graphs import GraphCache
    from mt.training import loop, setup

    seconds["import"] = time.time() - BEGAN
    for owner, name, stage in (
        (setup, "prepare_data", "prepare"), (setup, "open_device", "device"),
        (setup, "autotune", "autotune"), (GraphCache, "_capture", "capture"),
        (loop, "run_validation", "validate"), (loop, "save_checkpoint", "save"),
    ):  # fmt: skip
        setattr(owner, name, timed(stage, getattr(owner, name)))
    began = time.perf_counter()
    sets = [f"training.max_steps={steps}", f"schedule.warmup_steps={min(200, steps // 2)}"]
    sets += [f"training.validate_sentences={min(1000, steps)}"]
    loop.train(recipe.load(path, sets)[0], run)
    whole = time.perf_counter() - began
    seconds["train"] = whole - sum(seconds[each] for each in STAGES[1:] if each != "train")
    return seconds


if __name__ == "__main__":
    import os

    os.environ["MT_CACHE"] = sys.argv[3]
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    print(json.dumps(_train_and_time(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[4]))))
