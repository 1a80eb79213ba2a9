"""`mt init`: write a recipe that suits a corpus and this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mt.cli.options import MAX_COUNT


def command(
    files: Annotated[
        list[Path] | None,
        Argument(metavar="[SOURCE TARGET]", help="Two files of lines; or a TMX, PO or TSV file."),
    ] = None,
    pair: Annotated[
        str | None, Option("--pair", metavar="PAIR", help="Languages, source first: en-de.")
    ] = None,
    origin: Annotated[
        str | None,
        Option("--from", metavar="NAME", help="A corpus of mt data list: opus:Tatoeba."),
    ] = None,
    to: Annotated[
        Path | None, Option("--to", metavar="DIR", help="New folder; default: named by PAIR.")
    ] = None,
    minutes: Annotated[
        int | None,
        Option(
            "--minutes", min=1, max=MAX_COUNT, metavar="N",
            help="How long the training may take; default 30 on a CPU and 120 on a GPU, "
            "longer where that is too little for the corpus.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Write a recipe that suits a corpus and this machine.

    Reads all pairs, holds out a validation and a test set without a sentence of the training text,
    and writes DIR/PAIR.yaml, in which each choice has its reason. The rules are in docs/data.md.
    Without --pair the languages are the ends of the file names: train.en train.de.

    \b
    Example:  mt init train.en train.de
              mt init --pair en-de --from opus:Tatoeba --minutes 60
              mt train en-de/en-de.yaml
    """
    from mt.data.new_recipe import write_new_recipe
    from mt.runtime.console import print_line
    from mt.runtime.output import print_lines

    print_lines(write_new_recipe(files or [], origin, pair, to, minutes, print_line))
