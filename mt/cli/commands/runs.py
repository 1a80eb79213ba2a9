"""`mt runs`: list runs with their scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument


def command(
    folder: Annotated[Path, Argument(metavar="DIR", help="Where the runs are.")] = Path("runs"),
) -> None:
    """List the runs in a folder: languages, updates, epochs, hours, and the best validation.

    \b
    Example:  mt runs
    """
    from mt.checkpoints.run_list import format_runs, list_runs
    from mt.runtime.console import align_columns
    from mt.runtime.output import print_lines

    print_lines(align_columns(format_runs(list_runs(folder)), left=(0, 1, 5, 6)))
