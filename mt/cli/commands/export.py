"""`mt export`: write a model for another program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mt.cli.options import Checkpoint, Force, Trust


def command(
    run: Annotated[Path, Argument(metavar="RUN", help="A run, a checkpoint in it, or a bundle.")],
    to: Annotated[
        str, Option("--to", metavar="TARGET", help="ctranslate2, huggingface or bundle.")
    ],
    quantization: Annotated[
        str | None,
        Option(
            metavar="TYPE",
            help="Of ctranslate2's weights: int8, int8_float32, float16, bfloat16, ...; "
            "default float32.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        Option("-o", "--output", metavar="PATH", help="Its path; default beside the run."),
    ] = None,
    checkpoint: Checkpoint = None,
    sample: Annotated[
        Path | None, Option(metavar="FILE", help="Text to verify with; default a test set.")
    ] = None,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Write a model for another program, and verify that it is the same model.

    \b
      ctranslate2   a folder for the fastest engine on CPUs; mt translates with it, too
      huggingface   a folder that AutoTokenizer and AutoModelForSeq2SeqLM load
      bundle        one file, X.mt: weights, vocabulary, recipe, model card, checksums

    Both models score and translate up to 200 lines. In float32 forced scores may differ by 1e-4
    and greedy translations only by ties; in fewer bits both have a bound. A larger difference is
    an error (exit code 4) and leaves nothing behind. Size, speed and BLEU of both are printed.
    What a target cannot express is refused before any work.

    \b
    Example:  mt export runs/demo --to ctranslate2 --quantization int8
              mt translate runs/demo-ctranslate2-int8 < test.en > test.de
    """
    from mt.export import export
    from mt.runtime.output import print_report

    settings = {} if quantization is None else {"quantization": quantization}
    result = export.export_model(run, to, out, settings, checkpoint, sample, force)
    print_report(export.format_result(result))
