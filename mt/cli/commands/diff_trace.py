"""`mt diff-trace`: name the first update in which two traced runs differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mt.cli.options import DIFFERENT
from mt.errors import printable


def command(
    one: Annotated[Path, typer.Argument(metavar="A", help="A run directory, or a trace.jsonl.")],
    other: Annotated[Path, typer.Argument(metavar="B", help="Another.")],
) -> None:
    """Compare two runs that were trained with --trace, update by update, bit by bit.

    Names the first update that differs, and what differs: its position, data, loss, gradient norm
    or learning rate, or (every 50 updates and at the end) the weights after it. Exits with 0 when
    the runs are equal, with 8 when they differ.

    \b
    Example:  mt diff-trace runs/demo runs/again
    """
    from mt.runtime.output import print_lines
    from mt.training import determinism_trace

    traces = determinism_trace.read_trace(one), determinism_trace.read_trace(other)
    difference = determinism_trace.first_difference(*traces)
    if difference is None:
        print_lines([determinism_trace.summarize_equal(*traces)])
        return
    values = zip((one, other), difference.values, strict=True)
    lines = [f"  {value}  {printable(path)}" for path, value in values]
    print_lines([f"step {difference.step}: {difference.what} differs", *lines])
    raise typer.Exit(DIFFERENT)
