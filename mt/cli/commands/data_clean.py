"""`mt data clean`: write the good pairs of the training corpora as text files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from mt.cli.options import ConfigFile, RecipeSets


def command(
    config: ConfigFile,
    to: Annotated[Path, Option("--to", metavar="DIR", help="The folder for the kept pairs.")],
    dropped: Annotated[
        Path | None,
        Option(
            "--keep-dropped",
            metavar="FILE",
            help="Write the dropped pairs there, with rule and value, separated by tabs.",
        ),
    ] = None,
    sets: RecipeSets = None,
) -> None:
    """Drop bad pairs from the training corpora of a recipe; write the others as text.

    The rules are those of data.clean in the recipe, or the default ones where it has none. DIR
    gets a file for each side: train.en and train.de, or train.0.en and so on where there are
    several corpora. The table has the number of pairs that each rule dropped: each pair is
    counted once, by the first rule that finds something.

    \b
    Example:  mt data clean recipe.yaml --to clean --keep-dropped dropped.tsv
    """
    from mt.config import recipe
    from mt.data.cleaned_files import format_counts, with_default_rules, write_clean
    from mt.runtime.console import print_line
    from mt.runtime.output import print_lines

    data = with_default_rules(recipe.load(config, sets or ())[0].data)
    print_lines(format_counts(data, write_clean(data, to, dropped, print_line)))
