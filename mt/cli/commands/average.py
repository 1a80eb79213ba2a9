"""`mt average`: average the weights of checkpoints."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from mt.cli.options import MAX_COUNT, Force, RunFolder, Trust


def command(
    run: RunFolder,
    checkpoints: Annotated[
        list[str] | None,
        Argument(metavar="[step-A step-B ...]", help="Checkpoints; default the last ones."),
    ] = None,
    last: Annotated[
        int,
        Option(
            metavar="N",
            min=2,
            max=MAX_COUNT,
            help="Average the last N checkpoints, or all there are.",
        ),
    ] = 5,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Average the weights of checkpoints of one run, into its checkpoints/average.

    The average often translates a little better than each of them. Other commands use it with
    `--checkpoint average`. A run in training is refused. The key training.average does the same
    at the end of a training, and validates the result.

    \b
    Example:  mt average runs/demo --last 4
              mt average runs/demo step-400 step-600
              mt eval runs/demo --checkpoint average
    """
    from mt.checkpoints import averaging, run_directory
    from mt.runtime import console

    names = ", ".join(averaging.average_checkpoints(run, checkpoints or (), last, force))
    console.print_line(f"mt: averaged {names}; --checkpoint {run_directory.AVERAGE} takes it")
