"""The recipe: every section's Config, composed, and the checks between sections."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from mt.config.plugins import Plugin
from mt.config.schema import (
    BatchingConfig,
    DataConfig,
    EvaluationConfig,
    Languages,
    OptimizerConfig,
    RuntimeConfig,
    ScheduleConfig,
    SearchConfig,
    TrainingConfig,
    VocabularyConfig,
)
from mt.config.section import Section, Variant
from mt.config.validation import validate
from mt.config.yaml_reader import Document, override, read


class Recipe(Section):
    """A whole recipe, as a YAML file gives it."""

    languages: Languages
    """The translation direction."""
    data: DataConfig
    vocabulary: VocabularyConfig = VocabularyConfig()
    model: Annotated[Variant, Plugin("models", "transformer")] = Field(
        default={"kind": "transformer"}, validate_default=True
    )
    objective: Annotated[Variant, Plugin("objectives", "cross_entropy")] = Field(
        default={"kind": "cross_entropy"}, validate_default=True
    )
    optimizer: Annotated[OptimizerConfig, Plugin("optimizers", "adamw")] = Field(
        default={"kind": "adamw"}, validate_default=True
    )
    schedule: ScheduleConfig = ScheduleConfig()
    batching: BatchingConfig = BatchingConfig()
    training: TrainingConfig
    runtime: RuntimeConfig = RuntimeConfig()
    search: Annotated[SearchConfig, Plugin("search", "beam")] = Field(
        default={"kind": "beam"}, validate_default=True
    )
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="before")
    @classmethod
    def _share_languages(cls, value: Any) -> Any:
        """A corpus that does not say its languages has the recipe's."""
        if not isinstance(value, dict) or not isinstance(value.get("data"), dict):
            return value
        languages, data = value.get("languages"), dict(value["data"])
        if not isinstance(languages, dict):
            return value

        def with_languages(source: Any) -> Any:
            return {"languages": languages, **source} if isinstance(source, dict) else source

        for key in ("train", "more_valid"):
            if isinstance(data.get(key), list):
                data[key] = [with_languages(source) for source in data[key]]
        if "valid" in data:
            data["valid"] = with_languages(data["valid"])
        if isinstance(data.get("test"), dict):
            data["test"] = {name: with_languages(source) for name, source in data["test"].items()}
        return {**value, "data": data}

    @model_validator(mode="after")
    def _agree(self) -> Recipe:
        """The checks between sections; each names both keys."""
        training, plan = self.training, self.schedule
        if plan.falls_to_zero and training.max_steps is None and training.max_epochs is None:
            raise ValueError(
                f"schedule.kind: {plan.kind} falls to zero at the end and so needs "
                "training.max_steps or training.max_epochs"
            )
        if plan.falls_to_zero and self.data.streaming and training.max_steps is None:
            raise ValueError(
                f"schedule.kind: {plan.kind} falls to zero at the end and so needs "
                "training.max_steps: with data.streaming the length of an epoch is unknown"
            )
        if self.data.streaming and self.data.temperature != 1:
            raise ValueError(
                f"data.temperature: {self.data.temperature} needs to know how many pairs there "
                "are, which is unknown with data.streaming"
            )
        if training.max_steps is not None and plan.warmup_steps >= training.max_steps:
            raise ValueError(
                f"schedule.warmup_steps ({plan.warmup_steps}) must be below "
                f"training.max_steps ({training.max_steps})"
            )
        self._check_sides()
        known = getattr(self.model, "max_length", None)
        if known is not None and self.data.max_length > known:
            raise ValueError(
                f"data.max_length ({self.data.max_length}) is more than model.max_length ({known})"
            )
        micro = self.batching.micro_tokens
        if isinstance(micro, int) and micro < 2 * self.data.max_length:
            raise ValueError(
                f"batching.micro_tokens ({micro}) must hold one pair of the longest sides: "
                f"at least 2 * data.max_length ({2 * self.data.max_length})"
            )
        return self

    def _check_sides(self) -> None:
        """What has one side only is denoised, and translates nothing."""
        for name, test in self.data.test.items():
            if test.side is not None:
                raise ValueError(f"data.test.{name}: a test set needs both sides")
        alone = {f"data.train.{i}": source.side for i, source in enumerate(self.data.train)}
        alone["data.valid"] = self.data.valid.side
        alone |= {f"data.more_valid.{i}": s.side for i, s in enumerate(self.data.more_valid)}
        for key, side in alone.items():
            if side is None:
                continue
            if not getattr(self.objective, "denoises", False):
                raise ValueError(
                    f"{key}: has its {side} side only, from which objective.kind: "
                    f"{self.objective.kind} cannot learn; denoising can"
                )
            if not self.vocabulary.joint:
                raise ValueError(
                    f"{key}: has its {side} side only, to be read and written, which needs "
                    "vocabulary.joint: true"
                )
        if self.data.valid.side is not None and self.training.monitor != "loss":
            raise ValueError(
                f"data.valid: has its {self.data.valid.side} side only, and no translations to "
                f"score: training.monitor: {self.training.monitor} must be loss"
            )

    @property
    def told_languages(self) -> tuple[str, ...]:
        """The target languages, if there are several: each source then begins with a tag."""
        corpora = (*self.data.train, self.data.valid, *self.data.more_valid)
        alone = {source.language for source in corpora if source.side is not None}
        targets = {source.direction.target for source in corpora if source.side is None}
        return tuple(sorted(alone | targets)) if max(len(alone), len(targets)) > 1 else ()

    @property
    def direction(self) -> Languages:
        """The default direction: `languages` if it is trained on, else the first that is."""
        known = [each.direction for each in self.data.train if each.side is None]
        if not known or self.languages.target in {each.target for each in known}:
            return self.languages
        return known[0]

    @property
    def targets(self) -> tuple[str, ...]:
        """Every language that is written in training or validation."""
        corpora = (*self.data.train, self.data.valid, *self.data.more_valid)
        sides = [each.direction.target if each.side is None else each.language for each in corpora]
        return tuple(sorted(set(sides)))


def load(path: Path, overrides: Iterable[str] = ()) -> tuple[Recipe, Document]:
    """The recipe in a YAML file with `a.b=value` overrides applied, and the place of each value.

    Raises:
        ConfigError: everything that is wrong with it.
    """
    document = read(path)
    for assignment in overrides:
        document = override(document, assignment)
    return validate(Recipe, document), document


def dump(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, defaults filled in; loading it again gives an equal recipe."""
    return recipe.model_dump(mode="json")
