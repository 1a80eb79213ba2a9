"""`mt translate`: translate lines of text."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from mt.cli.options import (
    Checkpoint,
    Device,
    EngineSets,
    Precision,
    RunFolders,
    Threads,
    To,
    at_terminal,
    engine_options,
    open_input,
    refuse,
)

ABOUT = "Translate lines of text."


class BadBytes(Enum):
    """What is done at a line that is not UTF-8."""

    stop = "stop"
    replace = "replace"


def command(
    runs: RunFolders,
    source: Annotated[
        Path | None,
        typer.Option("-i", "--input", metavar="FILE", help="Text to read; standard input if none."),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Where to write; standard output."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the -o file if it is there already.")
    ] = False,
    n_best: Annotated[
        int, typer.Option(metavar="N", min=1, help="Write the N best translations of each line.")
    ] = 1,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="text, moses (line ||| translation ||| features ||| score) or json (an object a "
            "line, everything in it); moses for n-best lists, else text.",
        ),
    ] = None,
    scores: Annotated[
        bool,
        typer.Option("--scores", help="In text, the score and a tab before each translation."),
    ] = False,
    alignments: Annotated[
        bool,
        typer.Option(
            "--alignments",
            help="In text, a tab and word alignments i-j (source-target, from 0) after each "
            "translation; in moses a last field; in json the matrix, too.",
        ),
    ] = False,
    prefix: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What each translation must begin with, line by line."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of searches that sample.")] = 1,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Leave with 3 at a line too long for the model; else split."),
    ] = False,
    on_bad_utf8: Annotated[
        BadBytes,
        typer.Option(
            help="At a line that is not UTF-8: stop with 3, or read U+FFFD for the bytes."
        ),
    ] = BadBytes.stop,
    line_buffered: Annotated[
        bool,
        typer.Option("--line-buffered", help="Answer each line before the next is read; slower."),
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Share the work among N processes, a model in each; by default as many as CPU "
            "cores (at most 8) for a file of some size, else one.",
        ),
    ] = None,
    threads: Threads = None,
    precision: Precision = None,
    to: To = None,
    sets: EngineSets = None,
    checkpoint: Checkpoint = None,
    device: Device = None,
) -> None:
    """Translate text: one line in, one line out, in order; blank lines stay blank.

    The input is UTF-8, plain or compressed, raw: no tokenisation before or after. A file named
    by -o appears when it is complete. Of several models the log-probabilities are averaged;
    they must share one vocabulary. A model of several directions is told the language by --to.
    At a terminal, without -i, it is a conversation: a prompt, the translation coloured by
    confidence, and a map of the attention; Ctrl-D ends it.

    \b
    Example:  mt translate runs/demo -i test.en -o test.de --set search.beams=8
              mt translate runs/one runs/two --n-best 5 --format json < test.en
    """
    from mt.decoding import output_formats
    from mt.decoding import translate as translating
    from mt.runtime import files

    refuse(
        (force and target is None, "--force", "there is no -o file to replace"),
        (line_buffered and target is not None, "--line-buffered", "an -o file appears at the end"),
        (
            (processes or 1) > 1 and line_buffered,
            "--line-buffered",
            "one line is no work for several",
        ),
    )
    if target is not None and not force:
        files.refuse_existing(target, "choose another name, or replace it with --force")
    rendering = output_formats.make_formatter(form, n_best, scores, alignments)
    options = replace(
        engine_options(sets, checkpoint, device, precision, threads, processes or 1, to=to),
        ensemble_paths=tuple(runs[1:]), n_best=n_best, alignments=alignments, seed=seed,
        strict=strict,
        prefixes=files.read_lines(prefix) if prefix else None, line_buffered=line_buffered,
        low_latency=target is None,  # a file appears when it is complete
        token_scores=n_best > 1 or form in ("moses", "json"),
    )  # fmt: skip
    plain = source or target or form or scores or alignments or prefix or line_buffered
    if not plain and at_terminal():
        from mt.cli import interactive

        options = replace(options, token_scores=True)
        interactive.translate_interactively(translating.open_engine(runs[0], options), options)
        return
    with open_input(source) as stream:  # a file that is missing is told before a model is opened
        alone = line_buffered or options.device or threads or processes
        if not alone:
            options = replace(options, processes=translating.check_processes(stream))
        engine = translating.open_engine(runs[0], options)
        with files.open_output(target) as out:
            name, replaced = str(source or "standard input"), on_bad_utf8 is BadBytes.replace
            translating.translate_lines(engine, stream, out, options, name, rendering, replaced)
