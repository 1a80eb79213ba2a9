"""`mt train`: train a model, or resume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from mt.cli.options import ConfigFile, Fresh, NewRun, RecipeSets, Trust, refuse

if TYPE_CHECKING:
    from mt.runtime.distributed import World
    from mt.training.forecast import Forecast


def command(
    config: ConfigFile,
    sets: RecipeSets = None,
    run: NewRun = None,
    fresh: Fresh = False,
    trace: Annotated[
        bool, Option("--trace", help="Write trace.jsonl for mt diff-trace; slower on a GPU.")
    ] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Try some updates and print what all will need.")
    ] = False,
    as_json: Annotated[bool, Option("--json", help="With --dry-run: print JSON.")] = False,
    trust: Trust = False,
) -> None:
    """Train a model; the same command again resumes an interrupted run.

    Prepares the data if necessary, validates regularly, keeps the best and the last checkpoints,
    and writes metrics.jsonl and TensorBoard files into the run directory. Ctrl-C or SIGTERM saves
    a checkpoint and exits with 130 or 143.

    With --dry-run it makes some updates and a validation, writes no run, and prints the time, the
    memory and the disk that the whole training needs; it fails when that does not fit.

    \b
    Example:  mt train configs/demo.yaml --set training.max_minutes=10 --run runs/short
              mt train configs/demo.yaml --dry-run
              torchrun --nproc-per-node 2 -m -- mt train configs/demo.yaml
    """
    from mt.checkpoints import run_directory
    from mt.config import recipe
    from mt.runtime import distributed

    refuse(
        (as_json and not dry_run, "--json", "only a forecast, of --dry-run, is printed as JSON"),
        (dry_run and fresh, "--fresh", "a dry run writes no run, and so replaces none"),
        (dry_run and trace, "--trace", "a dry run writes no run"),
    )
    with distributed.join_processes() as world:
        loaded = run_directory.follow_move(recipe.load(config, sets or ())[0], config)
        folder = run or Path("runs") / config.stem
        if dry_run:
            from mt.training.dry_run import forecast_training

            print_forecast(forecast_training(loaded, folder, world), as_json, world)
            return
        from mt.training import loop

        loop.train(loaded, folder, fresh, trace, world)


def print_forecast(forecast: Forecast, as_json: bool, world: World) -> None:
    """Print a forecast on rank 0, as a table or as one JSON object."""
    import json
    from dataclasses import asdict

    from mt.runtime import console, output
    from mt.training.forecast import format_forecast

    table = console.align_columns(list(format_forecast(forecast)), left=(0, 1))
    if world.is_main:
        output.print_lines([json.dumps(asdict(forecast))] if as_json else table)
