"""Every YAML key that belongs to no plug-in, a class for each section."""

from __future__ import annotations

import re
from itertools import chain
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    field_serializer,
    field_validator,
    model_validator,
)

from mt.config.plugins import Plugin, plugin, plugins
from mt.config.section import (
    MAX_COUNT,
    MAX_FACTOR,
    MAX_HYPOTHESES,
    MAX_LENGTH,
    MAX_PROCESSES,
    InputFile,
    Section,
    Variant,
)
from mt.special_tokens import FIRST_PIECE


class Languages(Section):
    """A translation direction."""

    source: str
    """Language code of the source (`en`, `zh`, `pt-BR`)."""
    target: str
    """Language code of the target."""


class SourceConfig(Variant):
    """What every data source has: its kind and, when not the recipe's, its direction."""

    languages: Languages | None = None
    """Translation direction of this corpus; the recipe's when left out."""
    only: Literal["source", "target"] | None = None
    """Read this side alone, as text of one language, for `objective.kind: denoising`."""
    tag: Literal["bt"] | None = None
    """`bt`: its sources are a model's translations, and begin with the control piece `<bt>`."""

    @property
    def side(self) -> Literal["source", "target"] | None:
        """The one side that a monolingual corpus has; None: both."""
        return self.only

    @property
    def language(self) -> str:
        """The language of a monolingual corpus."""
        return self.direction.source if self.side == "source" else self.direction.target

    @property
    def direction(self) -> Languages:
        """The direction, which the recipe has filled in by now."""
        assert self.languages is not None, "recipe.load fills in the languages"
        return self.languages


Source = Annotated[SourceConfig, Plugin("sources")]


class FilterConfig(Variant):
    """What every rule of `data.clean` has."""

    name: str | None = Field(None, pattern=r"^[a-z][a-z0-9_]{0,30}$")
    """Its name in reports; its kind when left out. Two rules of one kind need different ones."""

    order: ClassVar[Literal["any", "kept", "all"]] = "any"
    """Which pairs it must see. `any`: each by itself, in any process; `kept`: in their order those
    that no other rule drops; `all`: every pair, in order."""
    learns: ClassVar[bool] = False
    """Whether it learns from a sample of the pairs first."""
    compares_sides: ClassVar[bool] = True
    """Whether it compares the two sides, which text of one language does not have."""
    needs_held_out: ClassVar[bool] = False
    """Whether it needs the validation and test pairs."""

    @property
    def label(self) -> str:
        """Its name in reports."""
        return self.name or self.kind.rpartition(".")[2]


Filter = Annotated[FilterConfig, Plugin("filters")]

DEFAULT_RULES: tuple[dict[str, Any], ...] = (
    {"kind": "control_characters"},
    {"kind": "length"},
    {"kind": "long_words"},
    {"kind": "ratio"},
    {"kind": "alphabet"},
    {"kind": "script"},
    {"kind": "copies"},
    {"kind": "markup"},
    {"kind": "placeholders"},
    {"kind": "urls"},
    {"kind": "numbers"},
    {"kind": "currency"},
    {"kind": "punctuation"},
    {"kind": "repetition"},
    {"kind": "overlap"},
    {"kind": "duplicates"},
)
"""The rules of `clean: default`. Of 1,000 sound pairs they drop at most one
(`scripts/bench/cleaning.py`), and none needs a package that mt does not install."""


class _DefaultRules(FilterConfig):
    """Stands for the default rules while a list of rules is checked."""

    kind: str = "default"


def _mark_default_rules(value: Any) -> Any:
    """Replace `default`, alone or in a list of rules; the other rules keep their places."""
    value = [value] if value == "default" else value
    if not isinstance(value, (list, tuple)):
        return value
    return [_DefaultRules() if each == "default" else each for each in value]


def _expand_default_rules(rules: tuple[FilterConfig, ...]) -> tuple[FilterConfig, ...]:
    """Put the default rules where they are marked."""
    if not any(isinstance(rule, _DefaultRules) for rule in rules):
        return rules
    default = TypeAdapter(tuple[Filter, ...]).validate_python(DEFAULT_RULES)
    each = [default if isinstance(rule, _DefaultRules) else (rule,) for rule in rules]
    return tuple(chain.from_iterable(each))


Rules = Annotated[
    tuple[Filter, ...],
    Field(strict=False),
    BeforeValidator(
        _mark_default_rules,
        json_schema_input_type=Literal["default"] | list[Literal["default"] | Filter],
    ),
    AfterValidator(_expand_default_rules),
]


class AugmentConfig(Section):
    """How likely a training pair is changed in an epoch; see `mt/data/augmentation.py`."""

    upper_case: float = Field(0.0, ge=0, le=1)
    """The source in capitals; 0.07 is usual."""
    title_case: float = Field(0.0, ge=0, le=1)
    """The source with a capital at the beginning of each word; 0.05 is usual."""
    typos: float = Field(0.0, ge=0, le=1)
    """Errors of typing in the source; 0.05 is usual."""
    no_end_mark: float = Field(0.0, ge=0, le=1)
    """The source without the mark at its end; 0.2 is usual."""
    noise: float = Field(0.0, ge=0, le=1)
    """Invented words in place of both sides, which a model learns to copy; 0.0005 is usual."""
    placeholders: float = Field(0.0, ge=0, le=1)
    """The same URL, tag or placeholder added to both sides; 0.005 is usual."""

    @property
    def changes(self) -> bool:
        """Whether any pair is changed."""
        return any(self.model_dump().values())

    @model_validator(mode="after")
    def _exclude(self) -> AugmentConfig:
        for a, b in (("upper_case", "title_case"), ("noise", "placeholders")):
            if getattr(self, a) + getattr(self, b) > 1:
                raise ValueError(f"{a} and {b} exclude each other: their sum is at most 1")
        return self


class DataLimits(Section):
    """Largest shares of faults with which `mt data report` still ends well (exit code 0, not 3)."""

    duplicates: float | None = Field(None, ge=0, le=1)
    """Of training pairs that repeat an earlier one."""
    suspects: float | None = Field(None, ge=0, le=1)
    """Of training pairs that a rule of cleaning would drop."""
    leaked: float | None = Field(None, ge=0, le=1)
    """Of the pairs of a validation or test set that are in the training data."""
    swapped: float | None = Field(None, ge=0, le=1)
    """Of pairs whose sides are swapped, by language identification."""
    other_script: float | None = Field(None, ge=0, le=1)
    """Of letters that are not of the script of their language."""
    too_long: float | None = Field(None, ge=0, le=1)
    """Of pairs that are longer than `data.max_length`."""
    bytes: float | None = Field(None, ge=0, le=1)
    """Of characters that the vocabulary spells in bytes."""


class DataConfig(Section):
    """The corpora."""

    train: tuple[Source, ...] = Field(strict=False, min_length=1)
    """Corpora to train on, one after another."""
    valid: Source
    """The corpus that chooses the checkpoint."""
    more_valid: tuple[Source, ...] = Field((), strict=False)
    """Further validation corpora, of other directions; what is monitored is the mean over all."""
    test: dict[str, Source] = Field(default_factory=dict)
    """Named test sets for `mt eval`."""
    max_length: int = Field(256, ge=2, le=MAX_LENGTH)
    """Most pieces of a side, end included; longer pairs are dropped, longer input is split."""
    drop_overlap: bool = True
    """Drop training pairs identical to a validation or test pair."""
    clean: Rules = ()
    """Rules that drop bad training pairs, or `default`: see docs/cleaning.md. By default none."""
    limits: DataLimits = DataLimits()
    """Faults with which `mt data report` fails; by default none."""
    augment: AugmentConfig = AugmentConfig()
    """Changes of training pairs, drawn again each epoch, that make a model robust; by default
    none."""
    temperature: float = Field(1.0, ge=1, le=MAX_FACTOR)
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
        if isinstance(value, int) and not 1 <= value <= MAX_PROCESSES:
            raise ValueError(f"should be auto or 1 to {MAX_PROCESSES}, got {value}")
        return value

    @model_validator(mode="after")
    def _rules_fit(self) -> DataConfig:
        labels = [rule.label for rule in self.clean]
        for rule in self.clean:
            if labels.count(rule.label) > 1:
                raise ValueError(f"clean: several rules are named {rule.label}; set their name")
            if self.streaming and (rule.learns or rule.order != "any"):
                raise ValueError(
                    f"clean: the rule {rule.label} must see all pairs, of which data.streaming "
                    "shows a few at a time; clean the corpora first with mt data clean"
                )
        return self


class SideSamplingConfig(Section):
    """How the words of one side are re-segmented each epoch; by default they are not."""

    dropout: float = Field(0.0, ge=0, le=1)
    """For `model: bpe`: probability of leaving out a merge each time that it could be made
    (Provilkov et al. 2020); 0: none is."""
    alpha: float | None = Field(None, ge=0, le=MAX_FACTOR)
    """For `model: unigram`: draw one of the `nbest` best segmentations of each word, in proportion
    to its probability to the power of this (Kudo 2018). 0: uniformly; large: nearly always the
    best; left out: always the best."""
    nbest: int | None = Field(None, ge=1, le=MAX_HYPOTHESES)
    """For `model: unigram`: the number of best segmentations to draw from; 64 when left out."""

    @model_validator(mode="after")
    def _agree(self) -> SideSamplingConfig:
        if self.nbest is not None and self.alpha is None:
            raise ValueError("nbest draws with alpha, which is missing")
        return self

    @property
    def kind(self) -> str | None:
        """What the vocabulary must be for it; None: anything."""
        return "bpe" if self.dropout else "unigram" if self.alpha is not None else None


class SamplingConfig(Section):
    """Subword regularisation: in each epoch words are cut in other ways, drawn at random."""

    source: SideSamplingConfig = SideSamplingConfig()
    """Of the source side."""
    target: SideSamplingConfig = SideSamplingConfig()
    """Of the target side."""

    @property
    def kinds(self) -> set[str]:
        """What the vocabulary must be for it: `bpe`, `unigram` or, when nothing is drawn, none."""
        return {side.kind for side in (self.source, self.target) if side.kind}


class VocabularyConfig(Section):
    """What text is cut into."""

    kind: Literal["sentencepiece", "whitespace"] = "sentencepiece"
    """`sentencepiece`: subwords; `whitespace`: for text that is already cut into pieces."""
    size: int = Field(8000, gt=FIRST_PIECE, lt=2**31)
    """Number of ids, the 68 special and reserved and the 256 bytes included; for `whitespace`
    the most there may be."""
    model: Literal["unigram", "bpe"] = "unigram"
    """How subwords are learned."""
    joint: bool = True
    """One vocabulary for both sides, or one for each."""
    character_coverage: Literal["auto"] | float = "auto"
    """Share of all characters that get a piece of their own, the rest are spelled in bytes;
    `auto`: 0.9995 where a side is Chinese, Japanese or Korean, else 1.0."""
    path: InputFile | None = None
    """An existing vocabulary to use as it is: a SentencePiece `.model`, or a run directory."""
    sample: int = Field(1_000_000, ge=1, le=MAX_COUNT)
    """Most lines of each side that it is learned from, spread over the whole corpus."""
    seed: int = Field(1, ge=0, lt=2**31)
    """Chooses the lines of the sample."""
    sampling: SamplingConfig = SamplingConfig()
    """Subword regularisation: in training words are cut in other ways, drawn for each epoch."""

    @field_validator("character_coverage")
    @classmethod
    def _a_share(cls, value: float | str) -> float | str:
        if isinstance(value, float) and not 0 < value <= 1:
            raise ValueError(f"should be auto or above 0 and at most 1, got {value}")
        return value

    @model_validator(mode="after")
    def _can_be_sampled(self) -> VocabularyConfig:
        model = self.model if self.kind == "sentencepiece" else self.kind
        for name in ("source", "target"):
            needed = getattr(self.sampling, name).kind
            # The kind of an existing vocabulary is checked when it is opened.
            if needed not in (None, model) and (self.path is None or self.kind == "whitespace"):
                key = "dropout" if needed == "bpe" else "alpha"
                raise ValueError(f"sampling.{name}.{key} is for model: {needed}, not for {model}")
        return self


class OptimizerConfig(Variant):
    """What every optimizer has."""

    learning_rate: float = Field(1e-3, gt=0, le=100)
    """Peak rate; the schedule's factor multiplies it at each update."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """The rate of a layer is this times that of the one above it; the embeddings' is lowest."""


class ScheduleConfig(Section):
    """How the learning rate moves."""

    kind: Literal["inverse_sqrt", "linear", "cosine", "constant"] = "inverse_sqrt"
    """Shape after the warm-up: the paper's inverse square root (section 5.3), a line or a cosine
    to zero at the last step, or constant."""
    warmup_steps: int = Field(4000, ge=0, le=MAX_COUNT)
    """Updates during which the rate rises linearly from 0 to its peak."""

    @property
    def falls_to_zero(self) -> bool:
        """Whether the shape needs to know the last step."""
        return self.kind in ("linear", "cosine")


class BatchingConfig(Section):
    """How sentence pairs are put into batches."""

    tokens: int = Field(4096, ge=1, le=MAX_COUNT)
    """Real target tokens (end included, padding not) of one update, over all micro-batches."""
    micro_tokens: Literal["auto"] | int = "auto"
    """Padded tokens, source and target together, of one forward pass."""
    window: int = Field(100, ge=1, le=MAX_LENGTH)
    """Updates' worth of sentences that are sorted by length together."""

    @field_validator("micro_tokens")
    @classmethod
    def _some_tokens(cls, value: int | str) -> int | str:
        if isinstance(value, int) and not 16 <= value <= MAX_COUNT:
            raise ValueError(f"should be auto or 16 to {MAX_COUNT}, got {value}")
        return value


class TrainingConfig(Section):
    """How long, how often, how careful."""

    max_steps: int | None = Field(None, ge=1, le=MAX_COUNT)
    """End after this many updates."""
    max_epochs: int | None = Field(None, ge=1, le=MAX_COUNT)
    """End after this many passes over the corpus."""
    max_minutes: float | None = Field(None, gt=0, le=1e7)
    """End after this many minutes of training, resumed time included."""
    seed: int = Field(1, ge=0, lt=2**31)
    """Seed of weights, dropout and the order of the data."""
    initialise_from: InputFile | None = None
    """Begin with the weights and the vocabulary of a run, of a checkpoint in it, or of a bundle."""
    freeze: tuple[str, ...] = Field((), strict=False)
    """Parameters that stay as they are: patterns of names, such as `encoder.*`."""
    clip: float = Field(1.0, ge=0, le=1e9)
    """Largest norm of the gradient; 0 leaves it as it is."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of the moving average of weights, which is what translates; 0: none."""
    average: int = Field(0, ge=0, le=MAX_COUNT)
    """Number of last checkpoints to average at the end (section 6.1 of the paper); 0: none."""
    patience: int | None = Field(None, ge=1, le=MAX_COUNT)
    """End after this many validations without a better one."""
    monitor: str = "bleu"
    """What makes a checkpoint better: `loss`, a kind of metric, or the name of one in
    `evaluation.metrics`. Where it is equal, or undefined as BLEU is where no translation has four
    tokens, chrF decides, then the loss."""
    report_every: int = Field(50, ge=1, le=MAX_COUNT)
    """Updates between reports."""
    validate_every: int = Field(1000, ge=1, le=MAX_COUNT)
    """Updates between validations."""
    save_every: int = Field(1000, ge=1, le=MAX_COUNT)
    """Updates between checkpoints."""
    keep_last: int = Field(3, ge=1, le=MAX_COUNT)
    """Checkpoints kept besides the best."""
    validate_sentences: int = Field(1000, ge=1, le=MAX_COUNT)
    """Most validation pairs that are translated for BLEU; the loss takes all."""
    samples: int = Field(3, ge=0, le=MAX_HYPOTHESES)
    """Sample translations shown at each validation."""

    @model_validator(mode="after")
    def _ends(self) -> TrainingConfig:
        if self.max_steps is None and self.max_epochs is None and self.max_minutes is None:
            raise ValueError("one of max_steps, max_epochs, max_minutes must be given")
        return self


class RuntimeConfig(Section):
    """What a run works on."""

    device: str = "auto"
    """`auto` (a CUDA device when there is one), `cpu`, `cuda` or `cuda:N`."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of matrix products; weights and sums stay fp32. `auto`: bf16 where it is measured to win."""
    threads: Literal["auto"] | int = Field("auto")
    """CPU threads; `auto`: one for each physical core."""
    compile: Literal["auto"] | bool = "auto"
    """Compile the blocks with torch.compile; `auto`: on CUDA, from 10,000 updates on."""
    graphs: bool = True
    """Replay micro-batches as CUDA graphs, one for each shape; not with `sharding: fsdp`."""
    sharding: Literal["none", "ddp", "fsdp"] = "none"
    """How several processes hold the model: each the whole of it (`none`, `ddp`, the same), or
    each a part (`fsdp`). One process holds it all, whatever this says."""

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
            raise ValueError(f"unknown device {device!r}; one of auto, cpu, cuda, cuda:N")
        return device

    @field_validator("threads")
    @classmethod
    def _some_threads(cls, threads: int | str) -> int | str:
        if isinstance(threads, int) and not 1 <= threads <= 1024:
            raise ValueError(f"should be auto or 1 to 1024, got {threads}")
        return threads


class SearchConfig(Variant):
    """What every search has."""

    max_length_ratio: float = Field(1.5, gt=0, le=1000)
    """A hypothesis has at most this times the source's pieces ..."""
    max_length_extra: int = Field(20, ge=0, le=MAX_LENGTH)
    """... plus this many pieces."""
    min_length: int = Field(1, ge=0, le=MAX_LENGTH)
    """A hypothesis has at least this many pieces, those of a prefix included, unless the limit is
    lower; at 0 the translation of a line with text may be empty."""
    split_sentences: bool = True
    """Translate a line in parts where it is unlike the training text: at its sentences where fewer
    than one training line in a hundred has several and is as long, at clauses where a sentence is
    longer than all but one in a thousand. Validations do not."""
    restore_case: bool = True
    """Translate a line in capitals, in title case or in small letters alone in the usual spelling,
    where that takes fewer pieces, and write that of capitals in capitals. Validations do not."""
    keep_untranslatable: bool = True
    """Where a translation has lost an address, a placeholder, a tag, a bullet, a long number or an
    unknown word, translate the rest of its sentence and put them back. Validations do not."""
    shortlist: bool = False
    """Search only the target pieces that the source's may become, as `mt shortlist` learned."""
    retry_repetition: bool = False
    """Search a sentence again with `no_repeat_ngram: 3` where its translation has something five
    times in a row and its source has not. `mbr` does not."""


def refuse_one_key(source: str | int | None, target: str | int | None) -> None:
    """Raise a ValueError when both sides of a corpus are read from one key or column."""
    if source is not None and source == target:
        raise ValueError(f"source and target: both are {source!r}; a pair has two sides")


Tokenizer = Literal[
    "auto", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "flores200", "spm", "char", "moses", "none"
]


METRIC_NAME = r"^[A-Za-z][A-Za-z0-9_.+-]{0,30}$"
"""What a metric may be named."""


class MetricConfig(Variant):
    """What every metric has."""

    name: str | None = Field(None, pattern=METRIC_NAME)
    """Its name in results, in `training.monitor` and for `--fail-below`; its kind when left out.
    Two metrics of one kind need different ones."""

    title: ClassVar[str] = ""
    """Its name in results when `name` is left out; empty: its kind."""
    needs_sources: ClassVar[bool] = False
    """Whether it reads the source lines. It is left out where only the translations are known."""

    @property
    def label(self) -> str:
        """Its name in `training.monitor`."""
        return self.name or self.kind.rpartition(".")[2]

    @property
    def result_name(self) -> str:
        """Its name in results."""
        return self.name or self.title or self.label

    @property
    def higher_is_better(self) -> bool:
        """Whether the larger of two scores is the better one."""
        return True


Metric = Annotated[MetricConfig, Plugin("metrics")]


def _expand_names(value: Any) -> Any:
    """Replace the plain names of metrics by their sections; a module needs a section."""
    if not isinstance(value, (list, tuple)):
        return value
    return [{"kind": each} if isinstance(each, str) and "." not in each else each for each in value]


class EvaluationConfig(Section):
    """How translations are scored."""

    tokenize: Tokenizer = "auto"
    """sacreBLEU's tokenizer, where `auto` goes by the target language; or `moses`, that of the
    Moses scripts, as in the tokenised BLEU of papers."""
    lowercase: bool = False
    """Compare lower-cased text."""
    metrics: Annotated[
        tuple[Metric, ...],
        Field(min_length=1, strict=False),
        BeforeValidator(_expand_names, json_schema_input_type=list[str | Metric]),
    ] = Field(("bleu", "chrf", "ter"), validate_default=True)
    """What `mt eval` computes: kinds, or sections with a kind. TER takes seconds a line where lines
    are long and translations bad."""

    @field_serializer("metrics")
    def _shorten(self, metrics: tuple[MetricConfig, ...]) -> list[Any]:
        """Write a metric without settings by its name alone, as earlier versions read it."""
        return [
            config.kind
            if "." not in config.kind and not config.model_dump(exclude_defaults=True)
            else config.model_dump(mode="json")
            for config in metrics
        ]

    @field_validator("metrics")
    @classmethod
    def _distinct(cls, metrics: tuple[MetricConfig, ...]) -> tuple[MetricConfig, ...]:
        labels = [config.label for config in metrics]
        taken = {"loss", "perplexity", *plugins("metrics")}
        for config in metrics:
            if labels.count(config.label) > 1:
                raise ValueError(f"several metrics are named {config.label}; set their name")
            if config.label in taken - {config.kind}:
                raise ValueError(f"a metric named {config.label} would be confused with another")
        return metrics

    def metric(self, label: str) -> MetricConfig:
        """Return a metric by its label; one that is not in `metrics` with its defaults.

        Raises:
            ValueError: there is none; lists those that there are.
        """
        chosen = {config.label: config for config in self.metrics}
        if label not in chosen and label in plugins("metrics"):
            schema = plugin("metrics", label).Config
            if not any(field.is_required() for field in schema.model_fields.values()):
                return cast(MetricConfig, schema())
        if label not in chosen:
            known = sorted({*plugins("metrics"), *chosen} - {"command"})
            raise ValueError(f"unknown metric {label!r} (there are: {', '.join(known)})")
        return chosen[label]
