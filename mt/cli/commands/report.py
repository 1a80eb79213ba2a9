"""`mt report`: write a page on a run: verdict, scores, curves, outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from mt.cli import options as cli


def command(
    run: cli.RunFolder,
    against: Annotated[
        Path | None, Option("--against", metavar="RUN", help="A run to compare it with.")
    ] = None,
    to: Annotated[
        Path | None,
        Option("-o", "--to", metavar="FILE", help="The page; default RUN/page.html."),
    ] = None,
    no_attention: Annotated[
        bool, Option("--no-attention", help="Leave out the maps of attention; no model is opened.")
    ] = False,
    force: cli.Force = False,
) -> None:
    """Write one HTML page on a run, or on a run against another one.

    It has a verdict in words, scores with signatures, curves of the validations, outputs over the
    training, what differs between the runs, expected and real chrF, faults that need no reference,
    chrF by length, and a table of sentences that sorts and filters, with maps of the attention of
    some. The page loads nothing and has at most 2 MB, and FILE.json beside it has the same
    figures. The translations are those that mt eval has kept.

    \b
    Example:  mt eval runs/new
              mt report runs/new --against runs/old -o new.html
    """
    from mt.report.page import verdict, write_report
    from mt.report.run_report import describe_run
    from mt.runtime.output import print_lines

    page = to or run / "page.html"
    report = describe_run(run, against, attention=not no_attention)
    write_report(report, page, force)
    print_lines([*verdict(report), *report["remarks"], f"wrote {page}"])
