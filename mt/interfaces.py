"""The nouns of the house and the protocols of its plug-ins: read this file first.

Legend: B sentences, S source length, T target length, D model width, H heads, V vocabulary,
N beams. All tensors are padded on the right with id 0. Nothing here imports torch when it
runs, so that an engine without torch stays without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from pydantic import Field

from mt.config.yaml_reader import Section, Variant

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.optim import Optimizer

PAD, UNK, BEGIN, END = 0, 1, 2, 3
"""Ids of the special pieces, the same in every vocabulary."""
FIRST_RESERVED, N_RESERVED = 4, 64
"""The reserved control pieces stand at ids 4 to 67; they are named as they are used."""
MASK, BACK_TRANSLATED = FIRST_RESERVED, FIRST_RESERVED + 1
"""`<mask>` and `<bt>`, the first of them."""
FIRST_PIECE = FIRST_RESERVED + N_RESERVED
"""The first id that text can become."""


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


class OptimizerConfig(Variant):
    """What every optimizer has."""

    learning_rate: float = Field(1e-3, gt=0)
    """Peak rate; the schedule's factor multiplies it at each update."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """The rate of a layer is this times that of the one above it; the embeddings' is lowest."""


class SearchConfig(Variant):
    """What every search has."""

    max_length_ratio: float = Field(1.5, gt=0)
    """A hypothesis has at most this times the source's pieces ..."""
    max_length_extra: int = Field(20, ge=0)
    """... plus this many pieces."""
    shortlist: bool = False
    """Search only the target pieces that the source's may become, as `mt shortlist` learned."""


# ---------------------------------------------------------------------------------- data


@dataclass(frozen=True, slots=True)
class Pair:
    """One sentence pair as it was read, raw; one side is None in monolingual data."""

    source: str | None
    target: str | None
    source_language: str
    target_language: str
    origin: str
    """Where it came from, `corpus:line`, lines counted from 1."""
    weight: float = 1.0
    """How much its loss counts."""


@dataclass(frozen=True)
class Pairs:
    """Pairs that can be read again: each iteration begins anew."""

    begin: Callable[[], Iterator[Pair]]

    def __iter__(self) -> Iterator[Pair]:
        """The pairs, from the first."""
        return self.begin()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some pairs of a stream, raw, and where to read on after them."""

    source: list[str | None]
    target: list[str | None]
    after: dict[str, Any]
    """The position, as JSON: whoever streams from it gets what follows."""
    corpus: int = 0
    """The number of its corpus in `data.train`; whoever reads several fills it in."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Sentence pairs as tensors of one rectangle a side, padded on the right with id 0."""

    source: Tensor
    """[B, S] ids, each row ending in `</s>`."""
    target: Tensor
    """[B, T+1] ids, `<s> y </s>`."""
    source_lengths: Tensor
    """[B] real positions of `source`."""
    target_lengths: Tensor
    """[B] real positions of `labels`, that is of y and `</s>`."""
    rows: Tensor
    """[B] positions in the corpus."""

    @property
    def inputs(self) -> Tensor:
        """[B, T] what the decoder is fed: the target shifted right (section 3.1)."""
        return self.target[:, :-1]

    @property
    def labels(self) -> Tensor:
        """[B, T] what the decoder shall say at each position."""
        return self.target[:, 1:]


@dataclass(frozen=True, slots=True)
class Memory:
    """The encoder's output."""

    states: Tensor
    """[B, S, D]."""
    valid: Tensor
    """[B, S] bool, True at real positions."""


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of a loss, as a sum and a count, so that no batching can change the mean."""

    name: str
    total: Tensor
    """[] sum over real positions; gradients flow through it."""
    count: Tensor
    """[] how many positions were summed."""
    weight: float = 1.0


Loss = tuple[Term, ...]
"""The loop divides each total by its GLOBAL count (all ranks, all micro-batches), weights, adds."""


# --------------------------------------------------------------------------------- models


class Cache(Protocol):
    """What decoding remembers: one row a beam for what grows, one a sentence for the source."""

    def reorder(self, rows: Tensor) -> None:
        """Beam row r becomes what row `rows[r]` [B*N] was."""

    def keep(self, sentences: Tensor) -> None:
        """Keep only these sentences [B'] (ascending), with all their beams."""


class Seq2Seq(Protocol):
    """A sequence-to-sequence model; an `nn.Module`."""

    def encode(self, source: Tensor) -> Memory:
        """Source ids [B, S] to memory."""

    def start(self, memory: Memory, beams: int, max_length: int) -> Cache:
        """A preallocated cache; cross-attention keys and values computed once a sentence."""

    def decode(self, target: Tensor, memory: Memory, cache: Cache | None = None) -> Tensor:
        """Hidden states [B, T, D] of the target inputs [B, T].

        With a cache, `target` [B*N, t] holds the tokens after those already cached.
        """

    def attention(self, source: Tensor, target: Tensor) -> Tensor:
        """The attention [B, T, S] over source ids [B, S] that aligns target inputs [B, T] best.

        Raises:
            ConfigError: the model has none.
        """

    def attentions(self, source: Tensor, target: Tensor) -> Mapping[str, Sequence[Tensor]]:
        """Every attention of every layer over source ids [B, S] and target inputs [B, T].

        Of `encoder` [B, H, S, S], `decoder` [B, H, T, T] and `cross` [B, H, T, S] what the model
        has, a tensor a layer, from its own forward pass. Each row sums to 1; layers may differ
        in their heads H.

        Raises:
            ConfigError: the model has none.
        """

    def output(self) -> tuple[Tensor, Tensor | None]:
        """The projection weight [V, D] and bias [V] (or None) that turn hidden states to logits."""

    def blocks(self) -> Iterable[nn.Module]:
        """The repeated layers, the unit of compilation and of sharding."""


class Objective(Protocol):
    """A training objective; an `nn.Module` whose own parameters train too.

    One that learns from monolingual corpora says so: its Config has `denoises = True`. One that
    draws from (seed, step, row) has a method `begin(seed)`, called before each update.
    """

    def __call__(self, batch: Batch) -> Loss:
        """The loss of one micro-batch, as sums and counts."""

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """What each term's count will be, told before the pass.

        With it the loop knows the global counts before the first of several backward passes.
        """


@runtime_checkable
class Replayable(Seq2Seq, Protocol):
    """A model that can also decode with a cache at fixed addresses, so that steps are replayed.

    Optional: any other is decoded plainly. With a cache its `decode` reads nothing of the memory,
    and the number of the step is the cache's `length`, which then lies on the device.
    """

    @property
    def alike(self) -> bool:
        """Whether all decoder layers have as many heads and use them all, as that cache needs."""

    def keys_values(self, memory: Memory, positions: int) -> list[tuple[Tensor, Tensor]]:
        """What each decoder layer attends to in the memory: keys and values [B, H, S, K].

        Afterwards the model knows so many target positions without making new tables.
        """


# --------------------------------------------------------------------------------- search


class Decoder(Protocol):
    """What a search sees: one model, an ensemble, or anything that predicts a next token."""

    def start(self, source: Tensor, beams: int, max_lengths: Tensor) -> Any:
        """The state before the first token, for source ids [B, S] and max_lengths [B]."""

    def step(self, state: Any, tokens: Tensor) -> Tensor:
        """Logits [B, N, V] after feeding tokens [B, N]; an ensemble: mean log-probabilities."""

    def sharpen(self, state: Any, ids: Tensor, logits: Tensor) -> Tensor:
        """What `step` gave for the tokens `ids` [B, N, K], as exactly as can be.

        Few tokens decide, so that `step` may compute all in fewer bits; `logits` [B, N, K] are
        what it gave for these, and what comes back when that was exact.
        """

    def reorder(self, state: Any, beams: Tensor) -> None:
        """Beam n of sentence b continues what beam `beams[b, n]` was; beams [B, N]."""

    def keep(self, state: Any, sentences: Tensor) -> None:
        """Keep only these sentences [B'] (ascending)."""

    def align(self, source: Tensor, tokens: Tensor) -> Tensor:
        """Attention [B, N, T, S] of hypotheses [B, N, T] over source ids [B, S]; rows sum to 1.

        All positions at once, by teacher forcing: what each step of the decoding attended to.
        """


@dataclass(frozen=True, slots=True)
class Request:
    """What a search is asked for."""

    source: Tensor
    """[B, S] ids."""
    max_lengths: Tensor
    """[B] most tokens of a hypothesis, `</s>` included."""
    prefixes: Sequence[Sequence[int]] | None = None
    """Tokens that each hypothesis of a sentence must begin with."""
    n_best: int = 1
    """How many hypotheses a sentence are wanted."""
    seeds: Sequence[int] | None = None
    """[B] for searches that sample: what is drawn for a sentence depends on its own seed only."""
    texts: Callable[[Sequence[Sequence[int]]], list[str]] | None = None
    """Tokens to text, for searches that compare texts."""


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """What a search found, best first."""

    tokens: Tensor
    """[B, N, T] without `<s>`, with `</s>` where it ended, padded with 0."""
    scores: Tensor
    """[B, N] length-penalised log-probability, descending; -inf where there is no hypothesis."""
    log_probabilities: Tensor
    """[B, N, T] of each token, 0 at padding."""


class Search(Protocol):
    """A search strategy; it knows no architecture."""

    def __call__(self, decoder: Decoder, request: Request) -> Hypotheses:
        """Find target sentences."""


# -------------------------------------------------------------------------------- engines


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence to be searched, in ids."""

    source: Sequence[int]
    """Ends in `</s>`."""
    max_length: int
    """Most tokens of its translation, `</s>` included."""
    prefix: Sequence[int] = ()
    """Tokens that its translation must begin with."""
    seed: int = 1
    """Of searches that sample."""

    @property
    def front(self) -> int:
        """How many control pieces, such as the tag of a language, stand before its text."""
        text = (n for n, i in enumerate(self.source) if not FIRST_RESERVED <= i < FIRST_PIECE)
        return next(text)


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One translation of a sentence, in ids."""

    tokens: Sequence[int]
    """Without `<s>`, ending in `</s>`."""
    score: float
    """Length-penalised log-probability (natural logarithm)."""
    log_probabilities: Sequence[float]
    """Of each token; none where an engine has to work for them and nobody asked."""
    alignment: Sequence[Sequence[float]] | None = None
    """A row a token over the source's ids, when asked for."""


class Searcher(Protocol):
    """What finds translations of sentences in ids: where engines differ. No torch in its interface.

    `mt.text_engine.TextEngine` makes an engine of it.
    """

    ahead: int
    """How many windows of sentences it likes to be given before the results of one are read."""

    def search(
        self, sentences: Sequence[Sentence], config: SearchConfig, options: EngineOptions
    ) -> Iterator[list[Hypothesis]]:
        """The `options.n_best` best hypotheses of each sentence, in order, the best first.

        Work may begin at the call; the iterator waits for it.

        Raises:
            ConfigError: the search, or an option, is not one of this searcher's.
            ModelError: a sentence has no hypothesis: the probabilities are not numbers.
        """

    def force(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """The log-probability of each token of each target, given (source, target) ids.

        Both sides end in `</s>`.
        """


@runtime_checkable
class Watcher(Protocol):
    """A searcher that can also tell what its model attends to; not every one can."""

    def forced(self, source: Sequence[int], target: Sequence[int]) -> Hypothesis:
        """A given target as if it had been found: its log-probability is its score.

        Both sides end in `</s>`.

        Raises:
            ConfigError: the model has no attention.
        """

    def attentions(
        self, source: Sequence[int], target: Sequence[int]
    ) -> Mapping[str, Sequence[NDArray[np.float32]]]:
        """What `Seq2Seq.attentions` tells of one pair: [H, T, S] a layer.

        Row t is from where token t of the target is said; both sides end in `</s>`.

        Raises:
            ConfigError: the model has no attention, or there are several.
        """


@dataclass(frozen=True, slots=True)
class Translation:
    """One line translated."""

    text: str
    score: float = 0.0
    """Length-penalised log-probability (natural logarithm); 0 for a blank line."""
    tokens: tuple[str, ...] = ()
    """Target pieces, `</s>` left out."""
    log_probabilities: tuple[float, ...] = ()
    """Of each token, and of the end."""
    alternatives: tuple[Translation, ...] = ()
    """The n-best list, this one first, when more than one was asked for."""
    source_tokens: tuple[str, ...] = ()
    """Source pieces, `</s>` left out."""
    alignment: tuple[tuple[float, ...], ...] | None = None
    """A row a target token over the source pieces, when asked for; `</s>` is in neither, so that
    a row sums to at most 1."""
    prefix: str = ""
    """The target text that was forced, when one was."""


@dataclass(frozen=True, slots=True)
class Score:
    """How probable a model finds a given target."""

    log_probability: float
    """Sum over tokens, `</s>` included (natural logarithm)."""
    tokens: int
    """How many tokens were scored, `</s>` included."""
    token_log_probabilities: tuple[float, ...] = ()
    pieces: tuple[str, ...] = ()
    """The tokens that were scored; the last is `</s>`."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What a caller asks of an engine; None leaves a choice to the run's recipe."""

    checkpoint: str | None = None
    """`best`, `last`, `average` or `step-N`."""
    search: Mapping[str, Any] = field(default_factory=dict)
    """Search settings that replace the recipe's, e.g. `{"beams": 8}`."""
    device: str | None = None
    precision: str | None = None
    threads: int | None = None
    processes: int = 1
    """How many processes share the work, each with its own copy of the model."""
    others: tuple[Path, ...] = ()
    """Further models of an ensemble: the log-probabilities of all are averaged."""
    batch_tokens: int = 6144
    """Padded source positions times beams of one batch."""
    line_buffered: bool = False
    """Translate each line before the next is read."""
    soon: bool = True
    """Whether somebody waits for the first translations; else more lines are sorted together."""
    n_best: int = 1
    alignments: bool = False
    token_scores: bool = False
    """Whether the log-probability of each token is asked for; an engine may tell it anyway."""
    prefixes: Iterable[str] | None = None
    """A target beginning for each line, when decoding is forced."""
    strict: bool = False
    """Refuse a line that is too long for the model, instead of splitting it."""
    seed: int = 1
    first_line: int = 0
    """Lines of the whole text that come before these: seeds and messages count them, too."""
    target_language: str | None = None
    """The target language asked of a multilingual model."""


class Engine(Protocol):
    """Anything that translates lines of text; no torch in its interface."""

    def translate(
        self, lines: Iterable[str], options: EngineOptions | None = None
    ) -> Iterator[Translation]:
        """A translation for each line, in order, lazily."""

    def score(self, pairs: Iterable[Pair]) -> Iterator[Score]:
        """The forced score of each pair's target."""


# ------------------------------------------------------------------- plug-ins, as modules


class Teacher(Protocol):
    """A loaded, frozen model that an objective may learn from; no `nn.Module`."""

    def hidden(self, batch: Batch) -> Tensor:
        """[B, T, D'] its hidden states at each target position, without a gradient."""

    def project(self, hidden: Tensor) -> Tensor:
        """[..., V] the logits of hidden states [..., D'], without a gradient."""

    def logits(self, batch: Batch) -> Tensor:
        """[B, T, V] `hidden` and `project` at once: a lot of memory for a large vocabulary."""


class ModelPlugin(Protocol):
    """A file in `models/`."""

    Config: type[Variant]

    def build(self, config: Any, vocabulary: Any) -> Seq2Seq:
        """The model, its weights initialised."""


class ObjectivePlugin(Protocol):
    """A file in `objectives/`."""

    Config: type[Variant]

    def build(
        self, config: Any, model: Seq2Seq, vocabulary: Any, teacher: Teacher | None
    ) -> Objective:
        """The objective; the teacher never enters optimizer, averaging or checkpoint."""


class OptimizerPlugin(Protocol):
    """A file in `optimizers/`."""

    Config: type[Variant]

    def build(self, config: Any, named_parameters: Iterable[tuple[str, Tensor]]) -> Optimizer:
        """The optimizer; the loop sets its rate at each step."""


class SearchPlugin(Protocol):
    """A file in `search/`."""

    Config: type[Variant]

    def build(self, config: Any) -> Search:
        """The search."""


class SourcePlugin(Protocol):
    """A file in `sources/`."""

    Config: type[SourceConfig]

    def read(self, config: Any) -> Iterable[Pair]:
        """The pairs, raw; the iterable can be iterated again."""

    # A corpus of one side gives pairs whose other side is None, and its Config says so: `side`.
    #
    # A source whose data come in shards may have a second function. Without it a stream reads
    # the pairs, those before the position too, and each process keeps its share of them:
    #
    # def stream(config, order, rank, world_size, position: dict | None) -> Iterator[Chunk]:
    #     """The pairs of one process, from a position on, the shards in order number `order`."""


class ExporterPlugin(Protocol):
    """A file in `exporters/`."""

    Config: type[Variant]

    def check(self, opened: Any, config: Any) -> None:
        """Refuse, by name and before any work, what the target cannot express."""

    def export(self, model: Seq2Seq, opened: Any, path: Path, config: Any) -> None:
        """Write a model for another program.

        Args:
            model: with the weights to translate with.
            opened: the `mt.checkpoint.Opened` that it is of.
            path: a folder or a file; it does not exist yet.
            config: this exporter's.
        """

    # What no engine of ours opens has a third function, to be tried by:
    #
    # def open(path, opened) -> Engine:
    #     """What was exported, to be compared with what it is of."""


class EnginePlugin(Protocol):
    """A file in `engines/`."""

    def accepts(self, path: Path) -> bool:
        """Whether this engine opens what lies at `path`; cheap, imports nothing heavy."""

    def open(self, path: Path, options: EngineOptions) -> Engine:
        """The engine for what lies at `path`."""
