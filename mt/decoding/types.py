"""Data types and interfaces of searches and engines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

from mt.config.schema import SearchConfig
from mt.data.pairs import Pair
from mt.special_tokens import FIRST_PIECE, FIRST_RESERVED


class Decoder(Protocol):
    """Predicts next tokens: one model, an ensemble, or anything else.

    Optional: `top_k(state, logits, count)`, a faster `candidates.top_k_in_blocks` of the last
    logits, or None.
    """

    def start(self, source: Tensor, beams: int, max_lengths: Tensor) -> Any:
        """The state before the first token, for source ids [B, S] and max_lengths [B]."""

    def step(self, state: Any, tokens: Tensor) -> Tensor:
        """Logits [B, N, V] after feeding tokens [B, N]; an ensemble: mean log-probabilities."""

    def recompute_in_fp32(self, state: Any, ids: Tensor, logits: Tensor) -> Tensor:
        """The logits [B, N, K] of the tokens `ids` [B, N, K] after the last step, in fp32.

        `step` may compute in fewer bits. `logits` [B, N, K] are its results for these tokens,
        and the result where they are exact.
        """

    def reorder(self, state: Any, beams: Tensor) -> None:
        """Beam n of sentence b continues what beam `beams[b, n]` was; beams [B, N]."""

    def select_sentences(self, state: Any, sentences: Tensor) -> None:
        """Keep only these sentences [B'] (ascending)."""

    def align(self, source: Tensor, tokens: Tensor) -> Tensor:
        """Attention [B, N, T, S] of hypotheses [B, N, T] over source ids [B, S], teacher-forced.

        Rows sum to 1.
        """


@dataclass(frozen=True, slots=True)
class Request:
    """The input of a search."""

    source: Tensor
    """[B, S] ids."""
    max_lengths: Tensor
    """[B] most tokens of a hypothesis, `</s>` included."""
    prefixes: Sequence[Sequence[int]] | None = None
    """Tokens that each hypothesis of a sentence must begin with."""
    n_best: int = 1
    """Hypotheses of each sentence."""
    min_length: int = 0
    """Fewest tokens of a hypothesis before `</s>`, where `max_lengths` leaves room for them."""
    seeds: Sequence[int] | None = None
    """[B] for searches that sample: a sentence's samples depend on its own seed only."""
    texts: Callable[[Sequence[Sequence[int]]], list[str]] | None = None
    """Tokens to text, for searches that compare texts."""


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """The result of a search, best first."""

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


@dataclass(frozen=True, slots=True)
class Sentence:
    """One source sentence in ids."""

    source: Sequence[int]
    """Ends in `</s>`."""
    max_length: int
    """Most tokens of its translation, `</s>` included."""
    prefix: Sequence[int] = ()
    """Tokens that its translation must begin with."""
    seed: int = 1
    """Of searches that sample."""
    prefix_ends_word: bool = False
    """Whether a word may not go on after the prefix."""
    text: str = ""
    """What its ids spell, as the user wrote it."""

    @property
    def front(self) -> int:
        """The number of control pieces, such as a language tag, before its text."""
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
    """Of each token; empty where an engine computes them on request only."""
    alignment: Sequence[Sequence[float]] | None = None
    """A row a token over the source's ids, on request."""


class Searcher(Protocol):
    """Finds translations of sentences in ids, without torch in its interface.

    `mt.decoding.text_translator.TextTranslator` makes an engine of it.
    """

    prefetch_windows: int
    """Windows of sentences to pass ahead before the results of one are read."""

    def search(
        self, sentences: Sequence[Sentence], config: SearchConfig, options: EngineOptions
    ) -> Iterator[list[Hypothesis]]:
        """The `options.n_best` best hypotheses of each sentence, in order, the best first.

        Work may begin at the call; the iterator waits for it.

        Raises:
            ConfigError: the searcher does not support the search or an option.
            ModelError: a sentence has no hypothesis: the probabilities are not numbers.
        """

    def force(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """The log-probability of each token of each target of (source, target) ids.

        Both sides end in `</s>`.
        """


@runtime_checkable
class AttentionSearcher(Protocol):
    """A searcher that can also return the attention of its model."""

    def forced(self, source: Sequence[int], target: Sequence[int]) -> Hypothesis:
        """The hypothesis of a given target, scored by its log-probability.

        Both sides end in `</s>`.

        Raises:
            ConfigError: the model has no attention.
        """

    def attentions(
        self, source: Sequence[int], target: Sequence[int]
    ) -> Mapping[str, Sequence[NDArray[np.float32]]]:
        """`Seq2Seq.attentions` of one pair: [H, T, S] a layer.

        Row t belongs to token t of the target; both sides end in `</s>`.

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
    """The n-best list, this one first, when `n_best` is above 1."""
    source_tokens: tuple[str, ...] = ()
    """Source pieces, `</s>` left out."""
    alignment: tuple[tuple[float, ...], ...] | None = None
    """A row a target token over the source pieces, on request; `</s>` is in neither, so that a
    row sums to at most 1."""
    prefix: str = ""
    """The forced target text."""
    truncated: bool = False
    """Whether the length limit of the search ended it; of a split line, any of its parts."""


@dataclass(frozen=True, slots=True)
class Score:
    """The log-probability of a given target."""

    log_probability: float
    """Sum over tokens, `</s>` included (natural logarithm)."""
    tokens: int
    """Number of tokens scored, `</s>` included."""
    token_log_probabilities: tuple[float, ...] = ()
    pieces: tuple[str, ...] = ()
    """The tokens scored; the last is `</s>`."""


ONE_SEARCH = {
    "keep_untranslatable": False, "restore_case": False, "retry_repetition": False,
    "split_sentences": False,
}  # fmt: skip
"""Search settings for what the model itself says of a line, at the price of one search."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of an engine; None leaves a choice to the run's recipe."""

    checkpoint: str | None = None
    """`best`, `last`, `average` or `step-N`."""
    search: Mapping[str, Any] = field(default_factory=dict)
    """Search settings that replace the recipe's, e.g. `{"beams": 8}`."""
    device: str | None = None
    precision: str | None = None
    threads: int | None = None
    processes: int = 1
    """Processes that share the work, each with its own copy of the model."""
    ensemble_paths: tuple[Path, ...] = ()
    """Further models of an ensemble: the log-probabilities of all are averaged."""
    batch_tokens: int | None = None
    """Padded source positions times beams of one batch; None: as the device allows."""
    line_buffered: bool = False
    """Translate each line before the next is read."""
    low_latency: bool = True
    """Return the first translations early; else more lines are sorted together."""
    n_best: int = 1
    alignments: bool = False
    token_scores: bool = False
    """Compute the log-probability of each token; an engine may do so anyway."""
    prefixes: Iterable[str] | None = None
    """A target beginning for each line, when decoding is forced."""
    strict: bool = False
    """Refuse a line that is too long for the model, instead of splitting it."""
    seed: int = 1
    line_offset: int = 0
    """Lines of the whole text before these: seeds and messages count them, too."""
    target_language: str | None = None
    """The target language, of a multilingual model."""


class Engine(Protocol):
    """Translates lines of text; no torch in its interface."""

    def translate(
        self, lines: Iterable[str], options: EngineOptions | None = None
    ) -> Iterator[Translation]:
        """A translation for each line, in order, lazily."""

    def score(self, pairs: Iterable[Pair]) -> Iterator[Score]:
        """The forced score of each pair's target."""
