"""`mt distill`: train a small student on what a large teacher says."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from mt.cli.options import ConfigFile, Precision, RecipeSets, Threads, engine_options, print_lines

ABOUT = "Train a small model on what a large one says."


class Level(Enum):
    """What the student learns from."""

    sequence = "sequence"
    word = "word"
    both = "both"


def command(
    teacher: Annotated[
        Path,
        typer.Argument(
            metavar="TEACHER",
            help="A run, a checkpoint in one, a bundle; for --level sequence also a CTranslate2 "
            "folder.",
        ),
    ],
    config: ConfigFile,
    sets: RecipeSets = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The student's run; runs/<config name> if left out."),
    ] = None,
    level: Annotated[
        Level | None,
        typer.Option(
            help="The teacher's translations, its probabilities of each word, or both; sequence, "
            "but for a recipe whose objective is distillation.",
        ),
    ] = None,
    keep_original: Annotated[
        bool, typer.Option("--keep-original", help="Train on the original pairs, too.")
    ] = False,
    beams: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Beams of the teacher; as its recipe says."),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Processes that translate; one a CPU core."),
    ] = None,
    threads: Threads = None,
    precision: Precision = None,
    no_train: Annotated[
        bool,
        typer.Option("--no-train", help="Translate only; mt train then trains the student."),
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over; an older run is moved aside, not deleted.")
    ] = False,
) -> None:
    """Train a student, say of fewer layers, on what a trained teacher says.

    Sequence-level: the teacher translates the training sources, and the student learns its
    translations. Word-level: the student learns the probabilities that the teacher gives at each
    position (objective.weight, objective.temperature). The student has the teacher's vocabulary.
    CONFIG is an ordinary recipe; the run is an ordinary one. What was interrupted goes on when
    the command is run again. At the end both are compared: size, lines/s, BLEU.

    \b
    Example:  mt distill runs/large configs/small.yaml --run runs/student
              mt distill runs/large configs/small.yaml --level both --set model.decoder_layers=1
    """
    from dataclasses import replace

    from mt.compression import distill
    from mt.decoding.translate import default_processes

    asked = engine_options(None, None, None, precision, threads)
    search = {} if beams is None else {"beams": beams}
    processes = processes or default_processes(asked.device)
    options = replace(asked, search=search, processes=processes)
    made = distill.make_plan(
        teacher, config, tuple(sets or ()), run or Path("runs") / config.stem,
        None if level is None else level.value, keep_original, options,
    )  # fmt: skip
    print_lines(distill.distill(made, fresh, not no_train))
