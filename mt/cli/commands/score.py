"""`mt score`: how probable a model finds given translations."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from mt.cli.options import (
    Checkpoint,
    Device,
    Precision,
    Processes,
    RunFolders,
    RuntimeSets,
    Threads,
    To,
    engine_options,
)

ABOUT = "Score given translations with a model."


class ScoreFormat(Enum):
    """How scores are written."""

    text = "text"
    json = "json"


def command(
    runs: RunFolders,
    source: Annotated[Path, typer.Option(metavar="FILE", help="The source text.")],
    target: Annotated[Path, typer.Option(metavar="FILE", help="Its translation, line by line.")],
    form: Annotated[
        ScoreFormat,
        typer.Option("--format", help="text: a number a line; json: that of each token, too."),
    ] = ScoreFormat.text,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Divide by the number of tokens, end included.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Leave with 3 at a line too long for the model; else cut."),
    ] = False,
    processes: Processes = 1,
    threads: Threads = None,
    precision: Precision = None,
    to: To = None,
    sets: RuntimeSets = None,
    checkpoint: Checkpoint = None,
    device: Device = None,
) -> None:
    """Score given translations: the log-probability (natural logarithm) of each, one a line.

    The model is made to say each target line, its end included (forced decoding). Both files
    are UTF-8, plain or compressed, of equally many lines. The number of tokens and the
    perplexity of all go to standard error. Several runs are scored as one, as an ensemble.

    \b
    Example:  mt score runs/demo --source test.en --target test.de
              mt score runs/demo --source test.en --target test.de --format json
    """
    from mt.decoding import translate as translating
    from mt.runtime import files

    options = engine_options(
        sets, checkpoint, device, precision, threads, processes, ("runtime",), to
    )
    translating.check_equal_lines(source, target)  # told before a model is opened
    options = replace(options, strict=strict, ensemble_paths=tuple(runs[1:]))
    engine = translating.open_engine(runs[0], options)
    with files.open_output(None) as out:
        as_json = form is ScoreFormat.json
        translating.score_files(engine, source, target, out, as_json, normalize)
