"""`mt backtranslate`: monolingual text becomes parallel text, by a model of the other direction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mt.cli.options import (
    Checkpoint,
    Device,
    EngineSets,
    Precision,
    Threads,
    To,
    engine_options,
    refuse,
)

ABOUT = "Make parallel text of monolingual text."


def command(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A model of the other direction: run, bundle, export."),
    ],
    text: Annotated[
        Path,
        typer.Argument(metavar="MONO", help="Text in the language that RUN reads, a line each."),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="The folder to write.")
    ],
    sampling: Annotated[
        bool,
        typer.Option(
            "--sampling", help="Draw translations at random rather than search the best ones."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Of --sampling.")] = 1,
    processes: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Processes; one a CPU core.")
    ] = None,
    threads: Threads = None,
    precision: Precision = None,
    to: To = None,
    sets: EngineSets = None,
    checkpoint: Checkpoint = None,
    device: Device = None,
) -> None:
    """Translate text of the language that you want to translate INTO back into the other one.

    For English to German, RUN translates German to English and MONO is German. DIR gets
    source.txt, what the model wrote, and target.txt, the text itself, without its blank lines; a
    recipe takes them as one more corpus, whose sources begin with the tag <bt>:

    \b
      - {kind: text, source: DIR/source.txt, target: DIR/target.txt, tag: bt}

    Sampling makes less perfect but more varied sources, which often teach more
    (--set search.top_k=10 restricts it). What was interrupted goes on when it is run again.

    \b
    Example:  mt backtranslate runs/de-en news.de -o data/news --sampling
    """
    from dataclasses import replace

    from mt.decoding import translate_corpus
    from mt.decoding.translate import default_processes
    from mt.runtime import console, files

    refuse((seed != 1 and not sampling, "--seed", "only --sampling draws anything"))
    options = engine_options(sets, checkpoint, device, precision, threads, to=to)
    if sampling:
        options = replace(options, search={**options.search, "kind": "sampling"})
    processes = processes or default_processes(options.device)
    options = replace(options, processes=processes, seed=seed)
    translate_corpus.translate_corpus(
        translate_corpus.CorpusJob(run, files.LineReader(text), out, options, "source"),
        console.print_line,
    )
    where = f"source: {out}/source.txt, target: {out}/target.txt"
    console.print_line(f"mt: data.train takes it as {{kind: text, {where}, tag: bt}}")
