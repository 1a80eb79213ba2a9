"""The recipe: every section's Config, composed, and the checks between sections."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mt.config.yaml_reader import (
    Document,
    InputFile,
    Location,
    Plugin,
    Section,
    Variant,
    describe,
    override,
    read,
    scalar,
    validate,
)
from mt.data.batch_sampler import Config as Batching
from mt.errors import ConfigError
from mt.interfaces import Languages, OptimizerConfig, SearchConfig, SourceConfig
from mt.runtime.distributed import Config as Runtime
from mt.training.schedule import Config as Schedule
from mt.vocabulary.vocabulary import Config as Vocabulary

Source = Annotated[SourceConfig, Plugin("sources")]


class Data(Section):
    """The corpora."""

    train: tuple[Source, ...] = Field(strict=False, min_length=1)
    """Corpora to train on, one after another."""
    valid: Source
    """The corpus that chooses the checkpoint."""
    more_valid: tuple[Source, ...] = Field((), strict=False)
    """Further validation corpora, of other directions; what is monitored is the mean over all."""
    test: dict[str, Source] = Field(default_factory=dict)
    """Named test sets for `mt eval`."""
    max_length: int = Field(256, ge=2)
    """Most pieces of a side, end included; longer pairs are dropped, longer input is split."""
    drop_overlap: bool = True
    """Drop training pairs identical to a validation or test pair."""
    temperature: float = Field(1.0, ge=1)
    """How often a corpus of n among N pairs is drawn from: as n/N to the power of 1 / this. At 1
    each pair once an epoch; above, small corpora more often, large ones less."""
    streaming: bool = False
    """Read the training corpora while training, from disk or from the hub, rather than encode
    them first: for those that no disk here holds. All in turn, some pairs of each."""
    processes: Literal["auto"] | int = "auto"
    """Processes that encode; `auto`: one a core."""

    @field_validator("processes")
    @classmethod
    def _some_processes(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError(f"should be auto or at least 1, got {value}")
        return value


class Training(Section):
    """How long, how often, how careful."""

    max_steps: int | None = Field(None, ge=1)
    """End after this many updates."""
    max_epochs: int | None = Field(None, ge=1)
    """End after this many passes over the corpus."""
    max_minutes: float | None = Field(None, gt=0)
    """End after this many minutes of training, resumed time included."""
    seed: int = Field(1, ge=0, lt=2**31)
    """Seed of weights, dropout and the order of the data."""
    initialise_from: InputFile | None = None
    """Begin with the weights and the vocabulary of a run, of a checkpoint in it, or of a bundle."""
    freeze: tuple[str, ...] = Field((), strict=False)
    """Parameters that stay as they are: patterns of names, such as `encoder.*`."""
    clip: float = Field(1.0, ge=0)
    """Largest norm of the gradient; 0 leaves it as it is."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of the moving average of weights, which is what translates; 0: none."""
    average: int = Field(0, ge=0)
    """Average the last so many checkpoints at the end (section 6.1 of the paper); 0: none."""
    patience: int | None = Field(None, ge=1)
    """End after so many validations without a better one."""
    monitor: Literal["bleu", "chrf", "loss"] = "bleu"
    """What makes a checkpoint better."""
    report_every: int = Field(50, ge=1)
    """Updates between reports."""
    validate_every: int = Field(1000, ge=1)
    """Updates between validations."""
    save_every: int = Field(1000, ge=1)
    """Updates between checkpoints."""
    keep_last: int = Field(3, ge=1)
    """Checkpoints kept besides the best."""
    validate_sentences: int = Field(1000, ge=1)
    """Most validation pairs that are translated for BLEU; the loss takes all."""
    samples: int = Field(3, ge=0)
    """Sample translations shown at each validation."""

    @model_validator(mode="after")
    def _ends(self) -> Training:
        if self.max_steps is None and self.max_epochs is None and self.max_minutes is None:
            raise ValueError("one of max_steps, max_epochs, max_minutes must be given")
        return self


class Evaluation(Section):
    """How sacreBLEU scores."""

    tokenize: Literal[
        "auto", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "flores200", "spm", "char", "none"
    ] = "auto"
    """sacreBLEU's tokenizer; `auto` goes by the target language."""
    lowercase: bool = False
    """Compare lower-cased text."""


class Recipe(Section):
    """A whole recipe, as a YAML file gives it."""

    languages: Languages
    """The translation direction."""
    data: Data
    vocabulary: Vocabulary = Vocabulary()
    model: Annotated[Variant, Plugin("models", "transformer")] = Field(
        default={"kind": "transformer"}, validate_default=True
    )
    objective: Annotated[Variant, Plugin("objectives", "cross_entropy")] = Field(
        default={"kind": "cross_entropy"}, validate_default=True
    )
    optimizer: Annotated[OptimizerConfig, Plugin("optimizers", "adamw")] = Field(
        default={"kind": "adamw"}, validate_default=True
    )
    schedule: Schedule = Schedule()
    batching: Batching = Batching()
    training: Training
    runtime: Runtime = Runtime()
    search: Annotated[SearchConfig, Plugin("search", "beam")] = Field(
        default={"kind": "beam"}, validate_default=True
    )
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="before")
    @classmethod
    def _share_languages(cls, value: Any) -> Any:
        """A corpus that does not say its languages has the recipe's."""
        if not isinstance(value, dict) or not isinstance(value.get("data"), dict):
            return value
        languages, data = value.get("languages"), dict(value["data"])
        if not isinstance(languages, dict):
            return value

        def told(source: Any) -> Any:
            return {"languages": languages, **source} if isinstance(source, dict) else source

        for key in ("train", "more_valid"):
            if isinstance(data.get(key), list):
                data[key] = [told(source) for source in data[key]]
        if "valid" in data:
            data["valid"] = told(data["valid"])
        if isinstance(data.get("test"), dict):
            data["test"] = {name: told(source) for name, source in data["test"].items()}
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
                "training.max_steps: with data.streaming nobody knows how long an epoch is"
            )
        if self.data.streaming and self.data.temperature != 1:
            raise ValueError(
                f"data.temperature: {self.data.temperature} needs to know how many pairs there "
                "are, and with data.streaming nobody does"
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
        """The languages to be written, if there are several: each source tells its own."""
        corpora = (*self.data.train, self.data.valid, *self.data.more_valid)
        alone = {source.language for source in corpora if source.side is not None}
        targets = {source.direction.target for source in corpora if source.side is None}
        return tuple(sorted(alone | targets)) if max(len(alone), len(targets)) > 1 else ()

    @property
    def direction(self) -> Languages:
        """Where the model translates when nobody says: as `languages`, if that is learned."""
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
    """The recipe in a YAML file with `a.b=value` overrides applied, and where each value stands.

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


# ------------------------------------------------------------------------------- showing


def rendered(recipe: Recipe, document: Document) -> Iterator[str]:
    """The whole recipe as lines of YAML, each value with where it was said.

    Args:
        recipe: the recipe.
        document: what it was read from.
    """
    for location, indent, text, is_value in _yaml_lines(dump(recipe), ()):
        line = "  " * indent + text
        yield f"{line:<47} # {_said(document, location)}" if is_value else line


def _yaml_lines(value: Any, location: Location) -> Iterator[tuple[Location, int, str, bool]]:
    """(location, indentation, text, whether it holds a value) of each line of a block."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, entry in entries:
        inside, label = (*location, key), f"{_word(key)}:" if isinstance(value, dict) else "-"
        nested = isinstance(entry, dict) or (
            isinstance(entry, list) and any(isinstance(item, dict) for item in entry)
        )
        if not entry or not nested:
            yield inside, len(location), f"{label} {_word(entry)}", True
            continue
        below = _yaml_lines(entry, inside)
        if isinstance(value, dict):
            yield inside, len(location), label, False
        else:  # the first key stands beside the dash
            first, _, text, is_value = next(below)
            yield first, len(location), f"- {text}", is_value
        yield from below


def _word(value: Any) -> str:
    """A scalar or a list of scalars as YAML that reads back as the same value."""
    if isinstance(value, list):
        return f"[{', '.join(_word(item) for item in value)}]"
    if isinstance(value, str):
        plain = re.fullmatch(r"[^\W\d][\w./<>-]*|/[\w./-]*", value) and scalar(value) == value
        return value if plain else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def _said(document: Document, location: Location) -> str:
    """Where the value at `location` was said, or that it is a default."""
    value: Any = document.value
    for depth, key in enumerate(location):
        known = key in value if isinstance(value, dict) else isinstance(value, list)
        if not known:
            if key == "languages" and depth:
                return "the recipe's languages"
            return "default"
        value = value[key]
    return document.place(location)


def explained(recipe: Recipe, document: Document, key: str) -> list[str]:
    """What there is to know of one key, such as `model.d_model`, or of a section's keys.

    Raises:
        ConfigError: there is no such key.
    """
    *_, (section, _, _), (value, name, location) = _way(recipe, key)
    lines = [f"{key}:"]
    if isinstance(section, Section):
        kind, default, meaning = describe(type(section), name)
        lines += [f"  {line}" for line in meaning.splitlines()]
    if _has_keys(value):
        return [*lines, *(f"  {key}.{name}" for name in _names(value))]
    if isinstance(section, Section):
        lines += [f"  type: {kind}", f"  default: {default}"]
    shown = list(value) if isinstance(value, tuple) else value
    return [*lines, f"  value: {_word(shown)} ({_said(document, location)})"]


def _way(recipe: Recipe, key: str) -> Iterator[tuple[Any, str, Location]]:
    """The (value, name, location) of each step from the recipe down to a key."""
    value: Any = recipe
    location: Location = ()
    yield value, "", location
    for name in key.split("."):
        step = int(name) if isinstance(value, tuple) and name.isdigit() else name
        names = _names(value)
        if step not in names:
            near = difflib.get_close_matches(name, [str(n) for n in names], n=1, cutoff=0.5)
            hint = f" (did you mean {near[0]}?)" if near else ""
            advice = "`mt config CONFIG` prints every key"
            what = f"there is no key {name}{hint}"
            raise ConfigError("CONFIG-KEY", f"--explain {key}", what, advice)
        value = getattr(value, name) if isinstance(value, Section) else value[step]
        location = (*location, step)
        yield value, name, location


def _has_keys(value: Any) -> bool:
    """Whether there are keys to explain below a value of a recipe."""
    if isinstance(value, tuple):
        return any(isinstance(entry, Section) for entry in value)
    return isinstance(value, Section) or (isinstance(value, dict) and bool(value))


def _names(value: Any) -> list[Any]:
    """The keys below a value of a recipe."""
    if isinstance(value, Section):
        return list(type(value).model_fields)
    if isinstance(value, tuple):
        return list(range(len(value)))
    return list(value) if isinstance(value, dict) else []
