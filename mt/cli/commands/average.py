"""`mt average`: average the weights of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ABOUT = "Average the weights of checkpoints."


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(metavar="[step-A step-B ...]", help="Which; the last ones if left out."),
    ] = None,
    last: Annotated[
        int, typer.Option(metavar="N", min=2, help="Of the last N checkpoints, or all there are.")
    ] = 5,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an average that is there already.")
    ] = False,
) -> None:
    """Average the weights of checkpoints of one run, into its checkpoints/average.

    The average often translates a little better than each of them; `--checkpoint average` of
    the other commands takes it. A run in training is refused; training.average does the same
    at the end of a training, and validates the result.

    \b
    Example:  mt average runs/demo --last 4
              mt average runs/demo step-400 step-600
              mt eval runs/demo --checkpoint average
    """
    from mt.checkpoints import averaging, run_directory
    from mt.runtime import console

    made = averaging.average_checkpoints(run, checkpoints or (), last, force)
    console.print_line(
        f"mt: averaged {', '.join(made)}; --checkpoint {run_directory.AVERAGE} takes it"
    )
