"""`mt data report`: describe the corpora of a recipe, and say what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from mt.cli.options import ConfigFile, RecipeSets


def command(
    config: ConfigFile,
    to: Annotated[
        Path | None,
        Option("-o", "--to", metavar="FILE", help="Write the page there, and FILE.json beside it."),
    ] = None,
    sets: RecipeSets = None,
) -> None:
    """Describe the corpora of a recipe, and say what is wrong with them.

    Prints sizes, suspects, leaks and a verdict. FILE is one HTML page with all figures, charts and
    examples, which needs neither network nor JavaScript. The suspects are what the rules of
    data.clean would drop, or the default rules where the recipe has none. Exits with 3 when a
    share is above its limit in data.limits.

    \b
    Example:  mt data report recipe.yaml -o report.html
    """
    from mt.config import recipe
    from mt.data.report import describe_data
    from mt.data.report_page import format_report, write_report
    from mt.data.verdict import check_limits
    from mt.runtime.console import print_line
    from mt.runtime.output import print_lines

    settings, _ = recipe.load(config, sets or ())
    report = describe_data(settings, print_line)
    if to is not None:
        write_report(report, to)
    print_lines(format_report(report))
    check_limits(report, settings.data.limits)
