"""`mt shortlist`: learn which target pieces a source can become."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ABOUT = "Learn which target pieces a source can become."


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    pieces: Annotated[
        int, typer.Option(metavar="K", min=1, help="Target pieces kept for each source piece.")
    ] = 100,
    frequent: Annotated[
        int,
        typer.Option(metavar="F", min=0, help="Frequent target pieces kept for every source."),
    ] = 1000,
    pairs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Most training pairs to learn from.")
    ] = 200_000,
) -> None:
    """Learn a lexical shortlist: which target pieces each source piece can become.

    With it --set search.shortlist=true computes the probabilities of these pieces only, which
    is faster the larger the vocabulary is. It is learned from the run's training data, which must
    still be where they were, by IBM Model 1, and written into the run; an earlier one is replaced.

    \b
    Example:  mt shortlist runs/demo
              mt translate runs/demo --set search.shortlist=true < test.en
    """
    from mt.decoding import learn_shortlist as preparing
    from mt.runtime import console

    preparing.learn_shortlist(run, pieces, frequent, pairs, console.print_line)
    console.print_line("mt: --set search.shortlist=true uses it")
