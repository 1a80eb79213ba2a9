"""The recipe: every section's Config, composed, and the checks between sections."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from mt.config import schema
from mt.config.plugins import Plugin, dotted_kinds, trust_kinds
from mt.config.schema import Languages, OptimizerConfig, SearchConfig, SourceConfig
from mt.config.section import Section, Variant
from mt.config.validation import validate
from mt.config.yaml_reader import Document, override, read


class Recipe(Section):
    """A whole recipe, as a YAML file gives it."""

    languages: Languages
    """The translation direction."""
    data: schema.DataConfig
    vocabulary: schema.VocabularyConfig = schema.VocabularyConfig()
    model: Annotated[Variant, Plugin("models", "transformer")] = Field(
        default={"kind": "transformer"}, validate_default=True
    )
    objective: Annotated[Variant, Plugin("objectives", "cross_entropy")] = Field(
        default={"kind": "cross_entropy"}, validate_default=True
    )
    optimizer: Annotated[OptimizerConfig, Plugin("optimizers", "adamw")] = Field(
        default={"kind": "adamw"}, validate_default=True
    )
    schedule: schema.ScheduleConfig = schema.ScheduleConfig()
    batching: schema.BatchingConfig = schema.BatchingConfig()
    training: schema.TrainingConfig
    runtime: schema.RuntimeConfig = schema.RuntimeConfig()
    search: Annotated[SearchConfig, Plugin("search", "beam")] = Field(
        default={"kind": "beam"}, validate_default=True
    )
    evaluation: schema.EvaluationConfig = Field(default={}, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _share_languages(cls, value: Any) -> Any:
        """Give the languages of the recipe to each corpus that names none."""
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
        """Check what concerns several sections; each message names both keys."""
        training, plan = self.training, self.schedule
        needs = f"schedule.kind: {plan.kind} falls to zero at the end and so needs"
        if plan.falls_to_zero and training.max_steps is None and training.max_epochs is None:
            raise ValueError(f"{needs} training.max_steps or training.max_epochs")
        if plan.falls_to_zero and self.data.streaming and training.max_steps is None:
            why = "with data.streaming the length of an epoch is unknown"
            raise ValueError(f"{needs} training.max_steps: {why}")
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
        if training.monitor != "loss":
            try:
                self.evaluation.metric(training.monitor)
            except ValueError as error:
                raise ValueError(f"training.monitor: {error}, or loss") from None
        length, limit = self.data.max_length, getattr(self.model, "max_length", None)
        if limit is not None and length > limit:
            raise ValueError(f"data.max_length ({length}) is more than model.max_length ({limit})")
        micro = self.batching.micro_tokens
        if isinstance(micro, int) and micro < 2 * length:
            raise ValueError(
                f"batching.micro_tokens ({micro}) must hold one pair of the longest sides: "
                f"at least 2 * data.max_length ({2 * length})"
            )
        return self

    def _check_sides(self) -> None:
        """Check that monolingual corpora are denoised, and translate nothing."""
        for name, test in self.data.test.items():
            if test.side is not None:
                raise ValueError(f"data.test.{name}: a test set needs both sides")
        sides = {f"data.train.{i}": source.side for i, source in enumerate(self.data.train)}
        sides["data.valid"] = self.data.valid.side
        sides |= {f"data.more_valid.{i}": s.side for i, s in enumerate(self.data.more_valid)}
        for key, side in sides.items():
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
    def learned_corpora(self) -> tuple[SourceConfig, ...]:
        """The training and validation corpora."""
        return (*self.data.train, self.data.valid, *self.data.more_valid)

    @property
    def tagged_languages(self) -> tuple[str, ...]:
        """The target languages, if there are several: each source then begins with a tag."""
        monolingual = {each.language for each in self.learned_corpora if each.side is not None}
        targets = {each.direction.target for each in self.learned_corpora if each.side is None}
        several = max(len(monolingual), len(targets)) > 1
        return tuple(sorted(monolingual | targets)) if several else ()

    @property
    def direction(self) -> Languages:
        """The default direction: `languages` if it is trained on, else the first that is."""
        directions = [each.direction for each in self.data.train if each.side is None]
        if not directions or self.languages.target in {each.target for each in directions}:
            return self.languages
        return directions[0]

    @property
    def targets(self) -> tuple[str, ...]:
        """Every language that is written in training or validation."""
        corpora = self.learned_corpora
        return tuple(
            sorted({c.direction.target if c.side is None else c.language for c in corpora})
        )


def load(path: Path, overrides: Iterable[str] = ()) -> tuple[Recipe, Document]:
    """Load a recipe with `a.b=value` overrides; a ConfigError has everything wrong with it."""
    document = read(path)
    for assignment in overrides:
        document = override(document, assignment)
    trust_kinds(dotted_kinds(document.value))
    return validate(Recipe, document), document


def trust_overrides(overrides: Iterable[str]) -> None:
    """Allow the import of modules that `a.b=value` overrides of the user name."""
    for assignment in overrides:
        trust_kinds(dotted_kinds(override(Document({}), assignment).value))


def dump(recipe: Recipe) -> dict[str, Any]:
    """Convert a recipe to plain values, defaults filled in; they load as an equal recipe."""
    return recipe.model_dump(mode="json")
