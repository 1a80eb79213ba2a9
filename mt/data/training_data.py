"""The training data of a run: updates, batches on the device, position.

A prepared corpus is planned an epoch at a time and gathered from memory-mapped arrays, or on the
GPU when it fits there. A streamed corpus is read window by window, a share on each rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from mt.config.recipe import Recipe
from mt.data.batch_sampler import plan_epoch, static_shapes
from mt.data.bucketing import PairIndices, Shape
from mt.data.cache import PreparedData
from mt.data.collate import collate_pairs, to_device
from mt.data.corpus import EncodedPairs
from mt.data.epoch_variation import EpochCorpora, EpochVariation
from mt.data.gpu_corpus import GpuCorpus, fits_on_device
from mt.data.streaming import Stream
from mt.errors import ModelError
from mt.interfaces import Batch, Cursor
from mt.runtime import distributed
from mt.runtime.distributed import World


class TrainingData:
    """The pairs of a prepared corpus."""

    def __init__(
        self, recipe: Recipe, prepared: PreparedData, device: torch.device, world: World
    ) -> None:
        self.recipe, self.prepared, self.device, self.world = recipe, prepared, device, world
        self.variation = EpochVariation(recipe, prepared.vocabulary)
        self.epochs: EpochCorpora | None = None
        if self.variation and prepared.train is not None:
            self.epochs = EpochCorpora(self.variation, prepared.train, recipe.training.seed)
        self.resolved: dict[str, Any] = {}
        self.gpu_corpus: GpuCorpus | None = None
        first = prepared.train if self.epochs is None else self.epochs(0)
        self.pairs: EncodedPairs = prepared.valid if first is None else first
        """The pairs that `load` reads: those of the current epoch, or window of a stream."""

    def set_resolved(self, resolved: dict[str, Any]) -> None:
        """Apply the micro-batch size and the static shapes that autotuning chose."""
        self.resolved = resolved
        if fits_on_device(self.pairs, self.device):
            self.gpu_corpus = GpuCorpus(self.pairs, self.device)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes of batches, smallest first; none: any shape."""
        return static_shapes(self.resolved)

    def updates(self, cursor: Cursor) -> Iterator[tuple[list[PairIndices], Cursor]]:
        """Yield the micro-batches of each update from `cursor` on, and the cursor after it.

        Raises:
            ModelError: there is no such update in the plan.
        """
        epoch = cursor.epoch
        while True:
            self._start_epoch(epoch)
            plan = plan_epoch(
                self.recipe, self.pairs, self.resolved, epoch, self.prepared.corpus_sizes
            )
            last = len(plan.windows) - 1
            for window in range(cursor.window, last + 1):
                updates = plan.updates(window)
                if cursor.update >= len(updates):
                    what = f"window {window} of epoch {epoch} has no update {cursor.update}"
                    advice = "another version of mt began this run; start over with --fresh"
                    raise ModelError("RESUME-PLAN", "the training data", what, advice)
                for number in range(cursor.update, len(updates)):
                    if number + 1 < len(updates):
                        cursor = Cursor(epoch, window, number + 1)
                    else:
                        cursor = Cursor(epoch, window + 1) if window < last else Cursor(epoch + 1)
                    yield updates[number], cursor
            epoch += 1

    def _start_epoch(self, epoch: int) -> None:
        """Load the pairs of an epoch, if each epoch has its own."""
        if self.epochs is not None:
            self.pairs = self.epochs.start_epoch(epoch)
            if self.gpu_corpus is not None:
                self.gpu_corpus = GpuCorpus(self.pairs, self.device)

    def rank_micro_batches(self, micro_batches: list[PairIndices]) -> list[PairIndices]:
        """Return the part of an update for this rank; all ranks get equally many."""
        return distributed.split_micro_batches(micro_batches, self.world)

    def count_target_tokens(self, micro_batches: list[PairIndices]) -> int:
        """Count the real target tokens of an update over all ranks."""
        return int(self.pairs.target_lengths[np.concatenate(micro_batches)].sum())

    def count_positions(self, rows: PairIndices) -> int:
        """Count the real source and target positions of some pairs."""
        sides = self.pairs.source_lengths, self.pairs.target_lengths
        return sum(int(side[rows].sum()) for side in sides)

    def load(self, rows: PairIndices) -> Batch:
        """Load the training pairs at `rows` as a batch on the device."""
        if self.gpu_corpus is not None and len(rows):
            return self.gpu_corpus.collate(rows, self.shapes)
        return to_device(collate_pairs(self.pairs, rows, self.shapes), self.device)

    def pack_cursor(self, cursor: Cursor) -> dict[str, Any] | None:
        """Return `Cursor.stream` for a checkpoint; all ranks must call this."""
        return cursor.stream

    def unpack_cursor(self, stream: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return `Cursor.stream` of this rank from a checkpoint."""
        return stream

    def last_step(self) -> int | None:
        """Return the step at which the run ends, when that is known beforehand."""
        plan = self.recipe.training
        limits = [] if plan.max_steps is None else [plan.max_steps]
        if plan.max_epochs is not None and self.prepared.train is not None:
            # Epochs of several windows differ by an update or two; the first is taken for all.
            sizes = self.prepared.corpus_sizes
            first = plan_epoch(self.recipe, self.pairs, self.resolved, 0, sizes)
            limits.append(plan.max_epochs * len(first))
        return min(limits, default=None)


class StreamedTrainingData(TrainingData):
    """Pairs that are read while training; each rank reads its own share."""

    stream: Stream
    log: Callable[[str], None]

    def set_resolved(self, resolved: dict[str, Any]) -> None:
        """Open the stream with the micro-batch size that autotuning chose."""
        self.resolved = resolved
        self.stream = Stream(
            self.recipe, self.prepared.vocabulary, self.prepared.held_out,
            resolved["micro_tokens"], self.world, self.log, self.variation,
        )  # fmt: skip

    def updates(self, cursor: Cursor) -> Iterator[tuple[list[PairIndices], Cursor]]:
        """Do as `TrainingData.updates`; rows are of the current window of the stream."""
        for micro_batches, after in self.stream.updates(cursor):
            self.pairs = self.stream.window
            yield micro_batches, after

    def rank_micro_batches(self, micro_batches: list[PairIndices]) -> list[PairIndices]:
        """Return all of this rank, and empty ones up to the most of any rank."""
        (most,) = distributed.all_reduce_max(self.world, len(micro_batches))
        return micro_batches + [np.array([], dtype=np.int64)] * (int(most) - len(micro_batches))

    def count_target_tokens(self, micro_batches: list[PairIndices]) -> int:
        """Count the real target tokens of an update over all ranks."""
        own = super().count_target_tokens(micro_batches)
        return sum(distributed.all_gather_json(self.world, own))

    def pack_cursor(self, cursor: Cursor) -> dict[str, Any] | None:
        """Return the positions of all ranks."""
        return self.stream.gather(cursor.stream)

    def unpack_cursor(self, stream: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return the position of this rank."""
        return self.stream.own_position(stream)


def open_training_data(
    recipe: Recipe, prepared: PreparedData, device: torch.device, world: World,
    log: Callable[[str], None],
) -> TrainingData:  # fmt: skip
    """Open the training data of a recipe, streamed if it says so."""
    if prepared.train is not None:
        return TrainingData(recipe, prepared, device, world)
    data = StreamedTrainingData(recipe, prepared, device, world)
    data.log = log
    return data
