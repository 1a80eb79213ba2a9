"""`mt prune`: take heads, layers and feed-forward columns out of a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mt.cli.options import Checkpoint, RecipeSets, print_lines

ABOUT = "Take heads, layers and columns out of a model."


def command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run directory, or a checkpoint in it.")
    ],
    heads: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="How many of all attention heads go: 50%; or closed, those whose gates are.",
        ),
    ] = None,
    ff: Annotated[
        str | None, typer.Option(metavar="SHARE", help="How many feed-forward columns go: 25%.")
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(metavar="STACK=N,...", help="How many stay: encoder=4,decoder=2."),
    ] = None,
    uneven: Annotated[
        bool,
        typer.Option(
            "--uneven", help="The least important heads of all go, not as many of each attention."
        ),
    ] = False,
    finetune_steps: Annotated[
        int, typer.Option(metavar="N", min=0, help="Train the pruned model for N updates.")
    ] = 0,
    pairs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Training pairs that tell what is important.")
    ] = 1000,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="NEW_RUN", help="RUN-pruned if left out."),
    ] = None,
    sets: RecipeSets = None,
    checkpoint: Checkpoint = None,
) -> None:
    """Take out of a trained model what it needs least, into a new and smaller run.

    What is important is told by the gradient of the loss on training pairs, which must still be
    where they were; whole layers by the loss without them. What goes is gone from the matrices,
    so the model is smaller and faster. As many heads go from each attention, which CTranslate2
    can still express; with --uneven it cannot. The new run is one as any other; fine-tuning is
    ordinary training by the run's recipe with 0.3 of its learning rate, which --set can change.
    Parameters, size, BLEU and speed before and after are printed.

    \b
    Example:  mt prune runs/demo --heads 50% --finetune-steps 200
              mt prune runs/demo --layers decoder=1 --ff 25% -o runs/small
    """
    from mt.compression import prune as pruning

    wanted = pruning.parse_request(heads, ff, layers, uneven)
    done = pruning.prune(run, wanted, finetune_steps, out, checkpoint, sets or (), pairs)
    print_lines(pruning.format_result(done))
