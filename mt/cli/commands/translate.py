"""`mt translate`: translate lines of text."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

from typer import Option

from mt.cli import options as cli

BadBytes = Enum("BadBytes", {"stop": "stop", "replace": "replace"})


def command(
    runs: cli.RunFolders,
    source: Annotated[
        Path | None,
        Option("-i", "--input", metavar="FILE", help="The text; default standard input, or `-`."),
    ] = None,
    target: Annotated[
        Path | None,
        Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Translations; default standard output, also `-`.",
        ),
    ] = None,
    force: cli.Force = False,
    n_best: Annotated[
        int,
        Option(
            metavar="N",
            min=1,
            max=cli.MAX_HYPOTHESES,
            help="Write the N best translations of each line.",
        ),
    ] = 1,
    form: Annotated[
        str | None,
        Option(
            "--format",
            metavar="NAME",
            help="text; moses: line ||| translation ||| features ||| score; json: an object per "
            "line with everything. Default moses for n-best lists, else text.",
        ),
    ] = None,
    scores: Annotated[
        bool, Option("--scores", help="In text, the score and a tab before each translation.")
    ] = False,
    quality: Annotated[
        bool,
        Option(
            "--quality",
            help="In text, the expected chrF (0 to 100) and a tab before each translation; in json "
            "a field. Fitted on the validation set in training.",
        ),
    ] = False,
    alignments: Annotated[
        bool,
        Option(
            "--alignments",
            help="In text, a tab and word alignments i-j (source-target, from 0) after each "
            "translation; in moses a last field; in json also the matrix.",
        ),
    ] = False,
    prefix: Annotated[
        Path | None, Option(metavar="FILE", help="Line by line, the start of each translation.")
    ] = None,
    seed: Annotated[
        int, Option(metavar="N", min=0, max=cli.MAX_SEED, help="Seed of searches that sample.")
    ] = 1,
    strict: cli.Strict = False,
    on_bad_utf8: Annotated[
        BadBytes, Option(help="At a line that is not UTF-8: exit with 3, or read U+FFFD.")
    ] = BadBytes.stop,
    line_buffered: Annotated[
        bool, Option("--line-buffered", help="Translate each line before reading on; slower.")
    ] = False,
    processes: Annotated[
        int | None,
        Option(
            metavar="N",
            min=1,
            max=cli.MAX_PROCESSES,
            help="Share the work among N processes, each with a model. Default one per CPU core, "
            "at most 8, for a large file; else 1.",
        ),
    ] = None,
    threads: cli.Threads = None,
    precision: cli.Precision = None,
    to: cli.To = None,
    sets: cli.EngineSets = None,
    checkpoint: cli.Checkpoint = None,
    device: cli.Device = None,
    trust: cli.Trust = False,
) -> None:
    """Translate text: one line in, one line out, in order; blank lines stay blank.

    The input is raw UTF-8, plain or compressed; nothing else needs to tokenise or detokenise it.
    A line too long for the model is split. The -o file appears when it is complete. An ensemble
    averages the log-probabilities of its models, which must share one vocabulary. At a terminal,
    without -i, translation is interactive: a prompt, the translation coloured by confidence, and a
    map of the attention; Ctrl-D ends it.

    \b
    Example:  mt translate runs/demo -i test.en -o test.de --set search.beams=8
              mt translate runs/one runs/two --n-best 5 --format json < test.en
    """
    from mt.decoding import output_formats
    from mt.decoding import translate as translating
    from mt.decoding.quality import read_calibration
    from mt.runtime import output, text_files

    several = (processes or 1) > 1
    target = None if target == output.STANDARD_OUTPUT else target
    cli.refuse(
        (force and target is None, "--force", "there is no -o file to replace"),
        (line_buffered and target is not None, "--line-buffered", "an -o file appears at the end"),
        (several and line_buffered, "--line-buffered", "one line is no work for several"),
    )
    if target is not None and not force:
        output.refuse_existing(target, "choose another name, or replace it with --force")
    calibration = read_calibration(runs[0], checkpoint) if quality else None
    formatter = output_formats.make_formatter(form, n_best, scores, alignments, calibration)
    options = replace(
        cli.engine_options(sets, checkpoint, device, precision, threads, processes or 1, to=to),
        ensemble_paths=tuple(runs[1:]), n_best=n_best, alignments=alignments, seed=seed,
        strict=strict,
        prefixes=text_files.read_lines(text_files.copy_pipe(prefix)) if prefix else None,
        line_buffered=line_buffered,
        low_latency=target is None,  # a file appears when it is complete
        token_scores=quality or n_best > 1 or form in ("moses", "json"),
    )  # fmt: skip
    batch_mode = (
        source or target or form or scores or quality or alignments or prefix or line_buffered
    )
    if not batch_mode and cli.at_terminal():
        from mt.cli.interactive import translate_interactively

        options = replace(options, token_scores=True)
        translate_interactively(translating.open_engine(runs[0], options), options)
        return
    with cli.open_input(source) as stream:  # reports a missing file before a model is opened
        if not (line_buffered or options.device or threads or processes):
            options = replace(options, processes=translating.check_processes(stream))
        engine = translating.open_engine(runs[0], options)
        name, replaced = str(source or "standard input"), on_bad_utf8 is BadBytes.replace
        with output.open_output(target) as out:
            translating.translate_lines(engine, stream, out, options, name, formatter, replaced)
