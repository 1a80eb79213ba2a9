"""Shared data types and interfaces of plug-ins. Read this file first.

Legend: B sentences, S source length, T target length, D model width, H heads, V vocabulary,
N beams. All tensors are padded on the right with id 0. Nothing here imports torch when it
runs, so that an engine without torch stays without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn


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


@dataclass(frozen=True)
class Cursor:
    """The position of the next update in the training data."""

    epoch: int = 0
    """Its epoch, counted from 0."""
    window: int = 0
    """Its window within the epoch, counted from 0."""
    update: int = 0
    """Its number within the window, or within the epoch of a stream, counted from 0."""
    stream: dict[str, Any] | None = None
    """The position of this rank in a streamed corpus; in a checkpoint, of each rank (`ranks`)."""


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

    def select_sentences(self, sentences: Tensor) -> None:
        """Keep only these sentences [B'] (ascending), with all their beams."""


class Seq2Seq(Protocol):
    """A sequence-to-sequence model; an `nn.Module`."""

    def encode(self, source: Tensor) -> Memory:
        """Source ids [B, S] to memory."""

    def start(self, memory: Memory, beams: int, max_length: int) -> Cache:
        """A preallocated cache; cross-attention keys and values computed once a sentence."""

    def decode(self, target: Tensor, memory: Memory, cache: Cache | None = None) -> Tensor:
        """Hidden states [B, T, D] of the target inputs [B, T].

        With a cache, `target` [B*N, t] are the tokens after those already cached.
        """

    def attention(self, source: Tensor, target: Tensor) -> Tensor:
        """The attention [B, T, S] over source ids [B, S] that aligns target inputs [B, T] best.

        A model whose attention can be trained (`objective.alignment_weight`) has a context manager
        `record_alignment()`, too: a list that gets the heads [B, H, T, S] of each `decode`.

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
        """The count of each term, before the pass.

        With it the loop knows the global counts before the first of several backward passes.
        """


@runtime_checkable
class StaticCacheModel(Seq2Seq, Protocol):
    """A model that can also decode with a cache at fixed addresses, so that steps are replayed.

    Optional: any other is decoded plainly. With a cache its `decode` reads nothing of the memory,
    and the number of the step is the cache's `length`, which then lies on the device.
    """

    @property
    def uniform_heads(self) -> bool:
        """Whether all decoder layers use the same number of heads, as that cache needs."""

    def keys_values(self, memory: Memory, positions: int) -> list[tuple[Tensor, Tensor]]:
        """What each decoder layer attends to in the memory: keys and values [B, H, S, K].

        It also extends the model's position tables to `positions` target positions.
        """


# ------------------------------------------------------------------- plug-ins, as modules


class Teacher(Protocol):
    """A loaded, frozen model that an objective may learn from; no `nn.Module`."""

    def hidden(self, batch: Batch) -> Tensor:
        """[B, T, D'] its hidden states at each target position, without a gradient."""

    def project(self, hidden: Tensor) -> Tensor:
        """[..., V] the logits of hidden states [..., D'], without a gradient."""
