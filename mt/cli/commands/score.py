"""`mt score`: print the log-probability of given translations."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

from typer import Option

from mt.cli import options as cli

ScoreFormat = Enum("ScoreFormat", {"text": "text", "json": "json"})


def command(
    runs: cli.RunFolders,
    source: Annotated[Path, Option(metavar="FILE", help="The source text.")],
    target: Annotated[Path, Option(metavar="FILE", help="Its translation, line by line.")],
    form: Annotated[
        ScoreFormat, Option("--format", help="text: a number per line; json: also of each token.")
    ] = ScoreFormat.text,
    normalize: Annotated[
        bool, Option("--normalize", help="Divide by the number of tokens, </s> included.")
    ] = False,
    strict: cli.Strict = False,
    processes: cli.Processes = 1,
    threads: cli.Threads = None,
    precision: cli.Precision = None,
    to: cli.To = None,
    sets: cli.RuntimeSets = None,
    checkpoint: cli.Checkpoint = None,
    device: cli.Device = None,
    trust: cli.Trust = False,
) -> None:
    """Print the log-probability (natural logarithm) of each given translation, one per line.

    Forced decoding scores each target line with its </s>. Both files are UTF-8, plain or
    compressed, with equally many lines; a line too long for the model is cut. The number of tokens
    and the perplexity of all lines go to standard error. Several runs are scored as an ensemble.

    \b
    Example:  mt score runs/demo --source test.en --target test.de
              mt score runs/demo --source test.en --target test.de --format json
    """
    from mt.decoding import translate as translating
    from mt.runtime import output, text_files

    options = cli.engine_options(
        sets, checkpoint, device, precision, threads, processes, ("runtime",), to
    )
    source, target = text_files.copy_pipe(source), text_files.copy_pipe(target)
    translating.check_equal_lines(source, target)  # before a model is opened
    options = replace(options, strict=strict, ensemble_paths=tuple(runs[1:]))
    engine = translating.open_engine(runs[0], options)
    as_json = form is ScoreFormat.json
    with output.open_output(None) as out:
        translating.score_files(engine, source, target, out, as_json, normalize)
