"""`mt eval`: BLEU, chrF2 and TER of a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from mt.cli.options import (
    Checkpoint,
    Device,
    EngineSets,
    Precision,
    Processes,
    RunFolders,
    Threads,
    To,
    engine_options,
    print_lines,
)

ABOUT = "Score a model: BLEU, chrF2, TER."


def command(
    runs: RunFolders,
    on: Annotated[
        list[str] | None,
        typer.Option("--on", metavar="NAME", help="A test set of the recipe; all if left out."),
    ] = None,
    source: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Evaluate on this text instead.")
    ] = None,
    reference: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Its translation; give several for several references."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a table.")
    ] = False,
    show: Annotated[
        int, typer.Option(metavar="N", help="Show N translations of each test set, too.", min=0)
    ] = 0,
    processes: Processes = 1,
    threads: Threads = None,
    precision: Precision = None,
    to: To = None,
    sets: EngineSets = None,
    checkpoint: Checkpoint = None,
    device: Device = None,
) -> None:
    """Score a model with sacreBLEU: BLEU, chrF2 and TER, each with its signature.

    Translates every test set of the recipe, or those named by --on, each to its own language, or
    the text of --source, to that of --to, and keeps the translations in RUN/hypotheses/, those of
    an ensemble in its first run's.

    \b
    Example:  mt eval runs/demo --on test --json
              mt eval runs/demo --source test.en --reference test.de
    """
    from mt.decoding import translate
    from mt.evaluation import evaluate as evaluating
    from mt.runtime import console

    options = replace(
        engine_options(sets, checkpoint, device, precision, threads, processes, to=to),
        ensemble_paths=tuple(runs[1:]), low_latency=False,
    )  # fmt: skip
    engine = translate.open_engine(runs[0], options)
    scores = evaluating.evaluate(runs[0], engine, on or (), source, reference or (), options)
    for name in scores:
        for example in evaluating.sample_translations(runs[0], name, show):
            for label, text in zip(("source", "reference", "translation"), example, strict=True):
                console.print_line(f"{label:11}  {text}")
            console.print_line("")
    if as_json:
        import json

        print_lines([json.dumps(scores, ensure_ascii=False)])
    else:
        print_lines(_table(scores))


def _table(scores: dict[str, Any]) -> list[str]:
    """One line a test set and metric: name, metric, score, signature."""
    width = max([8, *(len(name) for name in scores)])
    return [f"{'test set':{width}}  metric   score  signature"] + [
        f"{name:{width}}  {metric:6}  {value['score']:6.2f}  {value['signature']}"
        for name, metrics in scores.items()
        for metric, value in metrics.items()
    ]
