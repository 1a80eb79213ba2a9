"""Distillation: train a student on a teacher's translations, its probabilities, or both.

Sequence-level (Kim and Rush 2016, section 3.2): the teacher translates the training sources by beam
search, and the student trains on these translations. Word-level: `objective.kind: distillation`.
The student's run is an ordinary one that also keeps its training data:

    RUN/distilled/vocabulary/  train-0/  train-1/ ...  student.yaml
"""

from __future__ import annotations

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
from mt.evaluation import compare
from mt.runtime import console, files
from mt.runtime.distributed import several_processes
from mt.training.loop import train
from mt.training.setup import archive_run
from mt.training.teacher import check_vocabulary
from mt.vocabulary.learn import open_existing
from mt.vocabulary.vocabulary import Vocabulary

Level = Literal["sequence", "word", "both"]


@dataclass(frozen=True)
class Plan:
    """What to distil, and how."""

    teacher: Path
    recipe: Recipe
    """The student's, as its author wrote it."""
    run: Path
    level: Level
    keep_original: bool
    """Train on the original pairs, too."""
    options: EngineOptions
    """Of the teacher when it translates."""

    @property
    def folder(self) -> Path:
        """Where the student's recipe, vocabulary and data are written."""
        return self.run / "distilled"


def make_plan(
    teacher: Path, config: Path, sets: tuple[str, ...], run: Path, level: Level | None,
    keep_original: bool, options: EngineOptions,
) -> Plan:  # fmt: skip
    """Check what can be checked before any work; the level follows from the objective.

    Raises:
        ConfigError: the level and the objective, or other options, contradict each other.
        ModelError: there is no teacher, or it has another vocabulary than the recipe.
    """
    word = ("objective.kind=distillation",) if level in ("word", "both") else ()
    student, _ = recipe.load(config, (*word, *sets))
    word_level = student.objective.kind == "distillation"
    level = level or ("both" if word_level else "sequence")
    if word_level and level == "sequence":
        what = "distillation is a word-level objective"
        raise ConfigError("DISTILL", "objective.kind", what, "ask for --level both, or word")
    if keep_original and level == "word":
        what = "only sequence-level distillation replaces the original pairs"
        raise ConfigError("DISTILL", "--keep-original", what, "leave it out")
    if several_processes():
        what = "it is one process until the student trains"
        command = "torchrun -m -- mt train RUN/distilled/student.yaml --run RUN"
        advice = f"use --no-train, then {command}"
        raise ConfigError("DISTILL", "mt distill", what, advice)
    vocabulary = _load_vocabulary(teacher)
    if level != "sequence":
        if student.vocabulary.path is not None:
            check_vocabulary(teacher, vocabulary, open_existing(student.vocabulary))
        bundle.open_loaded_model(teacher)  # torch must be able to load it
    return Plan(teacher, student, run, level, keep_original, options)


def _load_vocabulary(model: Path) -> Vocabulary:
    """The vocabulary of a run, a checkpoint, a bundle or an exported folder."""
    if model.is_file() or run_directory.is_run(model):
        return bundle.open_loaded_model(model).vocabulary
    return Vocabulary.load(model)


def distill(
    plan: Plan, fresh: bool = False, training: bool = True,
    log: Callable[[str], None] = console.print_line,
) -> Iterator[str]:  # fmt: skip
    """Translate the training sources, train the student, and compare it with its teacher.

    A second call after an interruption continues. `fresh` renames an older run and starts over.
    Yields the lines of the comparison.
    """
    if fresh and plan.run.exists():
        archive_run(plan.run)
    student = _prepare_student(plan, log)
    files.write_file(plan.folder / "student.yaml", run_directory.recipe_text(student))
    if not training:
        log(f"train it with: mt train {plan.folder / 'student.yaml'} --run {plan.run}")
        return
    train(student, plan.run)
    models = {"teacher": plan.teacher, "student": plan.run}
    yield from compare.format_table(compare.compare_models(models, student))


def _prepare_student(plan: Plan, log: Callable[[str], None]) -> Recipe:
    """The student's recipe: translated data, the vocabulary of the teacher."""
    values: dict[str, Any] = recipe.dump(plan.recipe)
    files.make_folder(plan.folder)
    if plan.recipe.vocabulary.path is None:
        log("the student takes over the teacher's vocabulary")
        folder = files.make_folder(plan.folder / "vocabulary")
        _load_vocabulary(plan.teacher).save(folder)
        values["vocabulary"] = {**values["vocabulary"], "path": str(folder.absolute())}
    if plan.level != "sequence":
        values["objective"] = {**values["objective"], "teacher": str(plan.teacher.absolute())}
    if plan.level != "word":
        translated = [
            translate_corpora(plan, number, source, log)
            for number, source in enumerate(plan.recipe.data.train)
        ]
        original = values["data"]["train"] if plan.keep_original else []
        values["data"] = {**values["data"], "train": [*translated, *original]}
    return validate(Recipe, Document(values, name="the student's recipe"))


@dataclass(frozen=True)
class SourceTexts:
    """The source sides of a corpus, as lines; can be iterated again."""

    config: SourceConfig

    def __iter__(self) -> Iterator[str]:
        for pair in pairs.read_pairs(self.config):
            if pair.source is None:
                what = "there is no source side to be translated"
                advice = "distil from parallel text, or from monolingual text of the source side"
                raise DataError("DISTILL-SIDE", pair.origin, what, advice)
            yield pair.source


def translate_corpora(
    plan: Plan, number: int, source: SourceConfig, log: Callable[[str], None]
) -> dict[str, Any]:
    """Translate a training corpus by the teacher; the recipe section that reads the result."""
    out = plan.folder / f"train-{number}"
    direction: Languages = source.direction
    options = replace(plan.options, target_language=_target_language(plan, direction))
    job = translate_corpus.CorpusJob(plan.teacher, SourceTexts(source), out, options, "target")
    translate_corpus.translate_corpus(job, log)
    return {
        "kind": "text",
        "source": str((out / "source.txt").absolute()),
        "target": str((out / "target.txt").absolute()),
        "languages": direction.model_dump(),
    }


def _target_language(plan: Plan, direction: Languages) -> str | None:
    """The target language for the teacher; None when it has only one.

    Raises:
        ConfigError: the teacher translates another direction.
    """
    several = _load_vocabulary(plan.teacher).languages
    languages = several or (read_any_recipe(plan.teacher).direction.target,)
    if direction.target not in languages:
        what = f"the teacher translates to {', '.join(languages)}, the corpus to {direction.target}"
        raise ConfigError("DISTILL", "languages", what, "take a teacher of this direction")
    return direction.target if several else None
