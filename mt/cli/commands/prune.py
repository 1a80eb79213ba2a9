"""`mt prune`: remove heads, layers and feed-forward columns of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mt.cli.options import MAX_COUNT, Checkpoint, RecipeSets, Trust


def command(
    run: Annotated[Path, Argument(metavar="RUN", help="A run directory, or a checkpoint in it.")],
    heads: Annotated[
        str | None,
        Option(metavar="SHARE", help="Share of heads to remove, say 50%; or closed: by gates."),
    ] = None,
    ff: Annotated[
        str | None, Option(metavar="SHARE", help="Share of columns to remove, say 25%.")
    ] = None,
    layers: Annotated[
        str | None, Option(metavar="STACK=N,...", help="Layers to keep: encoder=4,decoder=2.")
    ] = None,
    uneven: Annotated[
        bool, Option("--uneven", help="Let attentions lose different numbers of heads.")
    ] = False,
    finetune_steps: Annotated[
        int, Option(metavar="N", min=0, max=MAX_COUNT, help="Train the pruned model for N updates.")
    ] = 0,
    pairs: Annotated[
        int, Option(metavar="N", min=1, max=MAX_COUNT, help="Pairs that importance is measured on.")
    ] = 1000,
    out: Annotated[
        Path | None, Option("-o", "--output", metavar="NEW_RUN", help="Default RUN-pruned.")
    ] = None,
    sets: RecipeSets = None,
    checkpoint: Checkpoint = None,
    trust: Trust = False,
) -> None:
    """Remove the least important parts of a trained model, into a new and smaller run.

    The importance of heads and columns is the gradient of the loss on training pairs, which may
    have moved together with the run; that of a layer is the loss without it. Removed parts leave
    the weight matrices, so the model is smaller and faster. Each attention loses as many heads,
    which CTranslate2 can still express; with --uneven it cannot. Fine-tuning is ordinary training
    by the run's recipe with 0.3 of its learning rate, which --set can change. Parameters, size,
    BLEU and speed before and after are printed.

    \b
    Example:  mt prune runs/demo --heads 50% --finetune-steps 200
              mt prune runs/demo --layers decoder=1 --ff 25% -o runs/small
    """
    from mt.compression import prune
    from mt.runtime.output import print_report

    request = prune.parse_request(heads, ff, layers, uneven)
    result = prune.prune(run, request, finetune_steps, out, checkpoint, sets or (), pairs)
    print_report(prune.format_result(result))
