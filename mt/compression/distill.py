"""Distillation: a student learns from a teacher's translations, its probabilities, or both.

Sequence-level (Kim and Rush 2016, section 3.2): the teacher translates the training sources with
its beam, and the student trains on what it wrote. Word-level: `objective.kind: distillation`. The
student's run is an ordinary one, which holds what it was trained on.

    RUN/distilled/vocabulary/  train-0/  train-1/ ...  student.yaml
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mt.checkpoints import bundle, run_directory
from mt.checkpoints.bundle import read_any_recipe
from mt.config import recipe
from mt.config.recipe import Recipe
from mt.config.schema import Languages, SourceConfig
from mt.config.validation import validate
from mt.config.yaml_reader import Document
from mt.data import pairs
from mt.decoding import translate_corpus
from mt.decoding.types import EngineOptions
from mt.errors import ConfigError, DataError
from mt.runtime import console, files
from mt.training.loop import train
from mt.training.setup import archive_run
from mt.training.teacher import check_vocabulary
from mt.vocabulary.learn import open_existing
from mt.vocabulary.vocabulary import Vocabulary

Level = Literal["sequence", "word", "both"]


@dataclass(frozen=True)
class Plan:
    """What is to be distilled."""

    teacher: Path
    recipe: Recipe
    """The student's, as its author wrote it."""
    run: Path
    level: Level
    keep_original: bool
    """Train on the original pairs, too."""
    options: EngineOptions
    """What is asked of the teacher when it translates."""

    @property
    def folder(self) -> Path:
        """What was made for the student."""
        return self.run / "distilled"


def make_plan(
    teacher: Path, config: Path, sets: tuple[str, ...], run: Path, level: Level | None,
    keep_original: bool, options: EngineOptions,
) -> Plan:  # fmt: skip
    """What is to be done, once it is seen that it can be; the level follows from the objective.

    Raises:
        ConfigError: the level and the objective, or other options, do not go together.
        ModelError: there is no teacher, or it has another vocabulary than the recipe asks for.
    """
    word = ("objective.kind=distillation",) if level in ("word", "both") else ()
    student, _ = recipe.load(config, (*word, *sets))
    taught = student.objective.kind == "distillation"
    level = level or ("both" if taught else "sequence")
    if taught and level == "sequence":
        what = "distillation is a word-level objective"
        raise ConfigError("DISTILL", "objective.kind", what, "ask for --level both, or word")
    if keep_original and level == "word":
        what = "only sequence-level distillation replaces the original pairs"
        raise ConfigError("DISTILL", "--keep-original", what, "leave it out")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        what = "it is one process until the student trains"
        advice = "use --no-train, then torchrun -m mt train RUN/distilled/student.yaml --run RUN"
        raise ConfigError("DISTILL", "mt distill", what, advice)
    known = _student_vocabulary(teacher)  # says what is wrong with the path
    if level != "sequence" and student.vocabulary.path is not None:
        check_vocabulary(teacher, known, open_existing(student.vocabulary))
    if level != "sequence":
        bundle.open_loaded_model(teacher)  # torch must be able to load it
    return Plan(teacher, student, run, level, keep_original, options)


def _student_vocabulary(model: Path) -> Vocabulary:
    """The vocabulary of a run, a checkpoint, a bundle or an exported folder."""
    if model.is_file() or run_directory.is_run(model):
        return bundle.open_loaded_model(model).vocabulary
    return Vocabulary.load(model)


def distill(
    made: Plan, fresh: bool = False, training: bool = True,
    tell: Callable[[str], None] = console.print_line,
) -> Iterator[str]:  # fmt: skip
    """Translate what is to be translated, train the student, and compare it with its teacher.

    Run again after any interruption it goes on where it was.

    Args:
        made: what to do.
        fresh: start over; an older run is moved aside.
        training: whether the student is trained now.
        tell: where a line of progress goes.

    Yields:
        The lines of a table, once the student has trained.
    """
    if fresh and made.run.exists():
        archive_run(made.run)
    student = _prepare_student(made, tell)
    files.write_file(made.folder / "student.yaml", run_directory.recipe_text(student))
    if not training:
        tell(f"train it with: mt train {made.folder / 'student.yaml'} --run {made.run}")
        return
    train(student, made.run)
    from mt.evaluation import compare

    models = {"teacher": made.teacher, "student": made.run}
    yield from compare.format_table(compare.compare_models(models, student))


def _prepare_student(made: Plan, tell: Callable[[str], None]) -> Recipe:
    """The student's recipe, its data translated, its vocabulary the teacher's."""
    values: dict[str, Any] = recipe.dump(made.recipe)
    files.make_folder(made.folder)
    if made.recipe.vocabulary.path is None:
        tell("the student takes over the teacher's vocabulary")
        own = files.make_folder(made.folder / "vocabulary")
        _student_vocabulary(made.teacher).save(own)
        values["vocabulary"] = {**values["vocabulary"], "path": str(own.absolute())}
    if made.level != "sequence":
        values["objective"] = {**values["objective"], "teacher": str(made.teacher.absolute())}
    if made.level != "word":
        written = [
            translate_corpora(made, number, source, tell)
            for number, source in enumerate(made.recipe.data.train)
        ]
        kept = values["data"]["train"] if made.keep_original else []
        values["data"] = {**values["data"], "train": [*written, *kept]}
    return validate(Recipe, Document(values, name="the student's recipe"))


@dataclass(frozen=True)
class SourceTexts:
    """The source sides of a corpus, as lines; can be read again."""

    config: SourceConfig

    def __iter__(self) -> Iterator[str]:
        for pair in pairs.read_pairs(self.config):
            if pair.source is None:
                what = "there is no source side to be translated"
                advice = "distil from parallel text, or from monolingual text of the source side"
                raise DataError("DISTILL-SIDE", pair.origin, what, advice)
            yield pair.source


def translate_corpora(
    made: Plan, number: int, source: SourceConfig, tell: Callable[[str], None]
) -> dict[str, Any]:
    """A training corpus as the teacher translates it: the section of the recipe that reads it."""
    out = made.folder / f"train-{number}"
    direction: Languages = source.direction
    options = replace(made.options, target_language=_engine_options(made, direction))
    translate_corpus.translate_corpus(
        translate_corpus.CorpusJob(made.teacher, SourceTexts(source), out, options, "target"), tell
    )
    return {
        "kind": "text",
        "source": str((out / "source.txt").absolute()),
        "target": str((out / "target.txt").absolute()),
        "languages": direction.model_dump(),
    }


def _engine_options(made: Plan, direction: Languages) -> str | None:
    """The language to ask of the teacher.

    Raises:
        ConfigError: the teacher translates another direction.
    """
    several = _student_vocabulary(made.teacher).languages
    known = several or (read_any_recipe(made.teacher).direction.target,)
    if direction.target not in known:
        what = f"the teacher translates to {', '.join(known)}, the corpus to {direction.target}"
        raise ConfigError("DISTILL", "languages", what, "take a teacher of this direction")
    return direction.target if several else None
