"""`mt distill`: train a small student on the output of a large teacher."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mt.cli import options as cli

Level = Enum("Level", {"sequence": "sequence", "word": "word", "both": "both"})


def command(
    teacher: Annotated[
        Path,
        Argument(
            metavar="TEACHER",
            help="A run, a checkpoint in one, a bundle; for --level sequence also a CTranslate2 "
            "folder.",
        ),
    ],
    config: cli.ConfigFile,
    sets: cli.RecipeSets = None,
    run: cli.NewRun = None,
    level: Annotated[
        Level | None,
        Option(
            help="The teacher's translations, its probabilities of each word, or both. Default "
            "both if the recipe's objective is distillation, else sequence.",
        ),
    ] = None,
    keep_original: Annotated[
        bool, Option("--keep-original", help="Train on the original pairs, too.")
    ] = False,
    beams: Annotated[
        int | None,
        Option(
            metavar="N",
            min=1,
            max=cli.MAX_HYPOTHESES,
            help="Beams of the teacher; default its recipe's.",
        ),
    ] = None,
    processes: cli.AutoProcesses = None,
    threads: cli.Threads = None,
    precision: cli.Precision = None,
    no_train: Annotated[
        bool, Option("--no-train", help="Translate only; mt train then trains the student.")
    ] = False,
    fresh: cli.Fresh = False,
    trust: cli.Trust = False,
) -> None:
    """Train a student, for example with fewer layers, on the output of a trained teacher.

    Sequence-level: the teacher translates the training sources, and the student learns its
    translations. Word-level: the student learns the teacher's probabilities at each position
    (objective.weight, objective.temperature). The student has the teacher's vocabulary. CONFIG
    and the run are ordinary ones. The same command again resumes. At the end size, lines/s and
    BLEU of both are compared.

    \b
    Example:  mt distill runs/large configs/small.yaml --run runs/student
              mt distill runs/large configs/small.yaml --level both --set model.decoder_layers=1
    """
    from mt.compression import distill
    from mt.decoding.translate import default_processes
    from mt.runtime.output import print_report

    options = cli.engine_options(None, None, None, precision, threads)
    search = {} if beams is None else {"beams": beams}
    processes = processes or default_processes(options.device)
    plan = distill.make_plan(
        teacher, config, tuple(sets or ()), run or Path("runs") / config.stem,
        None if level is None else level.value, keep_original,
        replace(options, search=search, processes=processes),
    )  # fmt: skip
    print_report(distill.distill(plan, fresh, not no_train))
