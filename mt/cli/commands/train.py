"""`mt train`: train a model, or resume."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from mt.cli.options import ConfigFile, Fresh, NewRun, RecipeSets, Trust


def command(
    config: ConfigFile,
    sets: RecipeSets = None,
    run: NewRun = None,
    fresh: Fresh = False,
    trace: Annotated[
        bool, Option("--trace", help="Write trace.jsonl for mt diff-trace; slower on a GPU.")
    ] = False,
    trust: Trust = False,
) -> None:
    """Train a model; the same command again resumes an interrupted run.

    Prepares the data if necessary, validates regularly, keeps the best and the last checkpoints,
    and writes metrics.jsonl and TensorBoard files into the run directory. Ctrl-C or SIGTERM saves
    a checkpoint and exits with 130 or 143.

    \b
    Example:  mt train configs/demo.yaml --set training.max_minutes=10 --run runs/short
              torchrun --nproc-per-node 2 -m -- mt train configs/demo.yaml
    """
    from mt.checkpoints import run_directory
    from mt.config import recipe
    from mt.runtime import distributed

    with distributed.join_processes() as world:
        loaded = run_directory.follow_move(recipe.load(config, sets or ())[0], config)
        from mt.training import loop

        loop.train(loaded, run or Path("runs") / config.stem, fresh, trace, world)
