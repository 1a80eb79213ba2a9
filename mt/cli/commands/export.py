"""`mt export`: write a model for another program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mt.cli.options import Checkpoint, print_lines

ABOUT = "Write a model for another program."


def command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run directory, a checkpoint in it, a bundle.")
    ],
    to: Annotated[
        str, typer.Option("--to", metavar="TARGET", help="ctranslate2, huggingface or bundle.")
    ],
    quantization: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="Of ctranslate2's weights: int8, int8_float32, float16, bfloat16, ...; float32.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="PATH", help="What to write; beside the run."),
    ] = None,
    checkpoint: Checkpoint = None,
    sample: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Lines to compare with; the recipe's first test set."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier export of that name.")
    ] = False,
) -> None:
    """Write a model for another program, and compare it with the model it came from.

    \b
      ctranslate2   a folder for the fastest engine on processors; mt translates with it, too
      huggingface   a folder that AutoTokenizer and AutoModelForSeq2SeqLM load
      bundle        one file, X.mt: weights, vocabulary, recipe, model card, checksums

    Up to 200 lines are scored and translated with both. In float32 forced scores may differ by
    1e-4 and greedy translations not at all, but for ties; in fewer bits both have a bound. What
    differs by more is an error (exit code 4) and leaves nothing behind. Size, speed and BLEU of
    both are printed. What a target cannot express is refused before any work.

    \b
    Example:  mt export runs/demo --to ctranslate2 --quantization int8
              mt translate runs/demo-ctranslate2-int8 < test.en > test.de
    """
    from mt.export import export as exporting

    settings = {} if quantization is None else {"quantization": quantization}
    done = exporting.export_model(run, to, out, settings, checkpoint, sample, force)
    print_lines(exporting.format_result(done))
