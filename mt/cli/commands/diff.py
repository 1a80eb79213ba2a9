"""`mt diff`: name what differs between two runs in recipe and data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mt.cli.options import DIFFERENT


def command(
    one: Annotated[Path, typer.Argument(metavar="A", help="A run, a checkpoint or a bundle.")],
    other: Annotated[Path, typer.Argument(metavar="B", help="Another.")],
) -> None:
    """Name what differs between two runs: keys of the recipe, files of data, the vocabulary.

    A line each, `key: value of A -> value of B`. Exits with 0 when nothing differs, with 8 when
    something does.

    \b
    Example:  mt diff runs/first runs/second
    """
    from mt.checkpoints.bundle import open_loaded_model
    from mt.checkpoints.run_list import compare_runs
    from mt.runtime.output import print_lines

    lines = list(compare_runs(open_loaded_model(one), open_loaded_model(other)))
    print_lines(lines or ["recipe, data and vocabulary are equal"])
    if lines:
        raise typer.Exit(DIFFERENT)
