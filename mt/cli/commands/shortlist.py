"""`mt shortlist`: learn the likely target pieces of each source piece."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from mt.cli.options import MAX_COUNT, RunFolder, Trust


def command(
    run: RunFolder,
    pieces: Annotated[
        int,
        Option(metavar="K", min=1, max=MAX_COUNT, help="Target pieces kept for each source piece."),
    ] = 100,
    frequent: Annotated[
        int,
        Option(
            metavar="F", min=0, max=MAX_COUNT, help="Frequent target pieces kept for every source."
        ),
    ] = 1000,
    pairs: Annotated[
        int, Option(metavar="N", min=1, max=MAX_COUNT, help="Most training pairs to learn from.")
    ] = 200_000,
    trust: Trust = False,
) -> None:
    """Learn a lexical shortlist: the likely target pieces of each source piece.

    With it, --set search.shortlist=true computes the probabilities of these pieces only, which
    saves more time the larger the vocabulary is. IBM Model 1 learns it from the training data,
    which may have moved together with the run. It is written into the run and replaces an earlier
    one.

    \b
    Example:  mt shortlist runs/demo
              mt translate runs/demo --set search.shortlist=true < test.en
    """
    from mt.decoding.learn_shortlist import learn_shortlist
    from mt.runtime.console import print_line

    learn_shortlist(run, pieces, frequent, pairs, print_line)
    print_line("mt: --set search.shortlist=true uses it")
