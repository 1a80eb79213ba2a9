"""`mt data list`: list the corpora of OPUS and the test sets of sacreBLEU."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option


def command(
    pair: Annotated[
        str | None,
        Argument(metavar="[PAIR]", help="Two language codes, such as de-en.", show_default=False),
    ] = None,
    grep: Annotated[
        str | None, Option("--grep", metavar="WORD", help="Only names with this word.")
    ] = None,
) -> None:
    """List corpora by name, version, languages, number of pairs and size of the archive.

    The largest comes first. Nothing is fetched: the catalogue is a part of mt. Without PAIR there
    is one line for each corpus. `mt data get` takes these names, and so does a recipe:
    {kind: opus, name: Tatoeba}. Each corpus has a licence of its own; see its page at OPUS.

    \b
    Example:  mt data list de-en
              mt data list de-en --grep wmt
    """
    from mt.data import catalogue
    from mt.runtime.console import align_columns, print_line
    from mt.runtime.output import print_lines

    rows = [
        (
            each.name, each.version or "-", each.languages,
            "-" if each.pairs is None else f"{each.pairs:,}",
            "-" if each.bytes is None else f"{each.bytes / 1e6:,.1f} MB",
        )
        for each in catalogue.list_corpora(pair, grep)
    ]  # fmt: skip
    print_lines(align_columns(rows, left=(0, 1, 2)))
    print_line(f"mt: {catalogue.opus_date()}; - is unknown")
