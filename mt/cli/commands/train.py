"""`mt train`: train a model, or resume."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mt.cli.options import ConfigFile, RecipeSets

ABOUT = "Train a model, or resume."


def command(
    config: ConfigFile,
    sets: RecipeSets = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The run directory; runs/<config name> if left out."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over; an older run is moved aside, not deleted.")
    ] = False,
    trace: Annotated[
        bool,
        typer.Option(
            "--trace",
            help="Write trace.jsonl for mt diff-trace; waits for the device at every update.",
        ),
    ] = False,
) -> None:
    """Train a model; the same command again resumes where it stopped.

    Prepares the data when needed, validates as it goes, keeps the best and the last checkpoints,
    and writes metrics.jsonl and TensorBoard files into the run directory. Ctrl-C or SIGTERM
    saves a checkpoint and leaves with 130 or 143.

    \b
    Example:  mt train configs/demo.yaml --set training.max_minutes=10 --run runs/short
              torchrun --nproc-per-node 2 -m mt train configs/demo.yaml
    """
    from mt.config import recipe
    from mt.runtime import distributed

    with distributed.join_processes() as world:
        settled, _ = recipe.load(config, sets or ())
        from mt.training import loop as training

        training.train(settled, run or Path("runs") / config.stem, fresh, trace, world)
