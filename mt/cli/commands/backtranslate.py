"""`mt backtranslate`: make parallel text from monolingual text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mt.cli import options as cli


def command(
    run: Annotated[
        Path, Argument(metavar="RUN", help="A model of the other direction: run, bundle, export.")
    ],
    text: Annotated[
        Path, Argument(metavar="MONO", help="Text in RUN's source language, line by line.")
    ],
    out: Annotated[Path, Option("-o", "--output", metavar="DIR", help="The folder to write.")],
    sampling: Annotated[
        bool, Option("--sampling", help="Sample translations instead of searching the best.")
    ] = False,
    seed: Annotated[
        int, Option(metavar="N", min=0, max=cli.MAX_SEED, help="Seed of --sampling.")
    ] = 1,
    processes: cli.AutoProcesses = None,
    threads: cli.Threads = None,
    precision: cli.Precision = None,
    to: cli.To = None,
    sets: cli.EngineSets = None,
    checkpoint: cli.Checkpoint = None,
    device: cli.Device = None,
    trust: cli.Trust = False,
) -> None:
    """Translate text of your target language back into your source language.

    For English to German, RUN translates German to English and MONO is German. DIR gets
    source.txt, the translations, and target.txt, the text itself without blank lines. A recipe
    takes them as one more corpus, whose sources begin with the tag <bt>:

    \b
      - {kind: text, source: DIR/source.txt, target: DIR/target.txt, tag: bt}

    Sampling makes less perfect but more varied sources, which are often better training data
    (--set search.top_k=10 restricts it). The same command again resumes.

    \b
    Example:  mt backtranslate runs/de-en news.de -o data/news --sampling
    """
    from mt.decoding.translate import default_processes
    from mt.decoding.translate_corpus import CorpusJob, translate_corpus
    from mt.runtime.console import print_line
    from mt.runtime.text_files import LineReader

    cli.refuse((seed != 1 and not sampling, "--seed", "only --sampling draws anything"))
    options = cli.engine_options(sets, checkpoint, device, precision, threads, to=to)
    if sampling:
        options = replace(options, search={**options.search, "kind": "sampling"})
    processes = processes or default_processes(options.device)
    options = replace(options, processes=processes, seed=seed)
    translate_corpus(CorpusJob(run, LineReader(text), out, options, "source"), print_line)
    where = f"source: {out}/source.txt, target: {out}/target.txt"
    print_line(f"mt: data.train takes it as {{kind: text, {where}, tag: bt}}")
