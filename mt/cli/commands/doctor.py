"""`mt doctor`: show what this machine has, and what a recipe lacks on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument

from mt.cli.options import RecipeSets


def command(
    config: Annotated[
        Path | None,
        Argument(metavar="[CONFIG|RUN]", help="A recipe to check, or a run to diagnose."),
    ] = None,
    sets: RecipeSets = None,
) -> None:
    """Show what this machine has, what a recipe lacks on it, or what went wrong in a run.

    The facts are versions, devices, memory, disk and extras.

    With CONFIG its files, device, metrics, search and rules of cleaning are checked, without
    reading a corpus or fetching anything: each thing that is missing is an error, and the exit
    code is not 0. Put the output into a report of a fault.

    With RUN its metrics.jsonl is read: each line names a fault, its evidence, and what to do. A
    last line compares its best validation with those of measured runs on about as many pairs.

    \b
    Example:  mt doctor
              mt doctor configs/demo.yaml
              mt doctor runs/demo
    """
    from mt.checkpoints.run_directory import is_run
    from mt.config import recipe
    from mt.runtime import console, output
    from mt.runtime.machine_facts import list_facts

    if config is not None and is_run(config):
        from mt.training.diagnosis import compare_history, diagnose, read_run_history

        history = read_run_history(config)
        output.print_lines(diagnose(history) or [f"{config}: nothing that looks wrong"])
        output.print_lines(filter(None, [compare_history(history)]))
        return
    output.print_lines(console.align_columns(list(list_facts()), left=(0, 1)))
    if config is None:
        return
    from mt.training.requirements import missing_requirements

    settings, _ = recipe.load(config, sets or ())
    missing = missing_requirements(settings)
    if not missing:
        output.print_lines(["", f"{config}: nothing is missing"])
        return
    for error in missing[:-1]:
        console.write_error(str(error))
    raise missing[-1]
