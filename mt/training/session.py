"""What a training works with: made from a recipe, resolved by trying, put back on a resume."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mt.config.recipe import Recipe
from mt.data import batch_sampler, collate
from mt.data.bucketing import Lengths, PairIndices, Shape
from mt.data.cache import PreparedData
from mt.data.corpus import EncodedPairs
from mt.data.gpu_corpus import GpuCorpus
from mt.data.streaming import Stream
from mt.data.subword_regularization import EpochCorpora
from mt.interfaces import Batch
from mt.runtime import distributed
from mt.runtime.distributed import World
from mt.runtime.signals import StopRequest
from mt.training.determinism_trace import TraceWriter
from mt.training.ema import MovingAverage
from mt.training.graphed_step import GraphedStep
from mt.training.meter import Meter
from mt.training.reporter import Reporter
from mt.training.step import MicroBatchRunner, ModelWithLoss, accumulate_micro_batch


@dataclass
class TrainingRun:
    """What a training works with; everything that changes and must survive is in TrainState."""

    recipe: Recipe
    run: Path
    world: World
    prepared: PreparedData
    step: ModelWithLoss
    """Model and objective; when sharded, this process's part of them."""
    shared: nn.Module
    """What the gradient is taken through: `step`, or what keeps its copies equal."""
    plain: ModelWithLoss | None
    """When sharded, room for a whole copy of the weights to translate with."""
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None
    scaler: torch.amp.GradScaler
    device: torch.device
    resolved: dict[str, Any]
    report: Reporter
    stop: StopRequest
    last_step: int | None
    graphs: GraphedStep | None
    """What replays whole micro-batches on a CUDA device."""
    resident: GpuCorpus | None
    """The training corpus on the device, when it fits there."""
    stream: Stream | None
    """Where updates come from when the training corpora are streamed."""
    epochs: EpochCorpora | None = None
    """The training pairs as each epoch sees them, when their words are cut anew in each."""
    taught_by: str | None = None
    """The hash of the teacher, where the objective has one."""
    drawn: EncodedPairs | None = None
    """Those of the epoch that is being trained on."""
    began: float = 0.0
    """The time, on the monotonic clock, when training would have begun without interruption."""
    meter: Meter = field(default_factory=lambda: Meter())
    unread: list[tuple[int, PairIndices, Tensor]] = field(default_factory=list)
    """Updates of which the host does not know yet whether they were skipped: step, rows, flag."""
    tracing: bool = False
    """Whether a trace is written: by the first process, but all must tell it of their losses."""
    trace: TraceWriter | None = None

    def best(self) -> ModelWithLoss:
        """Model and objective with the weights to translate with; all processes must ask."""
        best = cast(ModelWithLoss, self.average.module) if self.average else self.step
        if self.plain is None:
            return best
        with torch.no_grad():
            for mine, theirs in zip(self.plain.parameters(), best.parameters(), strict=True):
                mine.copy_(distributed.full_tensor(theirs))
        return self.plain

    @property
    def read_every(self) -> int:
        """After how many updates to ask what was skipped; on a CPU nobody waits for the answer."""
        return 1 if self.device.type == "cpu" else 10

    @property
    def graphed(self) -> tuple[MicroBatchRunner, bool]:
        """How a micro-batch is run, and whether gradients must stay where they are."""
        return (accumulate_micro_batch, False) if self.graphs is None else (self.graphs, True)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes that batches may have; none: any."""
        return static_shapes(self.resolved)

    @property
    def pairs(self) -> EncodedPairs:
        """What holds the pairs of the update that is being made."""
        if self.stream is not None:
            return self.stream.window
        assert self.prepared.train is not None
        return self.prepared.train if self.drawn is None else self.drawn

    def take(self, epoch: int) -> EncodedPairs:
        """The training pairs as an epoch sees them, from which batches are loaded from now on."""
        if self.epochs is not None:
            self.drawn = self.epochs.taken(epoch)
            if self.resident is not None:
                self.resident = GpuCorpus(self.drawn, self.device)
        return self.pairs

    @property
    def sides(self) -> tuple[Lengths, Lengths]:
        """[pairs] real positions of each side of `pairs`."""
        return self.pairs.source_lengths, self.pairs.target_lengths

    def load(self, rows: PairIndices) -> Batch:
        """The training pairs at `rows` as a batch on the device."""
        if self.resident is not None and len(rows):
            return self.resident.collate(rows, self.shapes)
        return collate.to_device(collate.collate_pairs(self.pairs, rows, self.shapes), self.device)

    @property
    def about(self) -> dict[str, Any]:
        """What a checkpoint belongs to."""
        known, prepared = self.prepared.vocabulary, self.prepared
        told = {"data": prepared.digest, "valid": prepared.valid.digest, "vocabulary": known.digest}
        return told if self.taught_by is None else told | {"teacher": self.taught_by}


def static_shapes(resolved: dict[str, Any]) -> tuple[Shape, ...]:
    """The shapes that were chosen, smallest first."""
    return tuple((rows, source, target) for rows, source, target in resolved["shapes"])


def plan_epoch(
    recipe: Recipe, corpus: Any, resolved: dict[str, Any], epoch: int, parts: tuple[int, ...] = ()
) -> batch_sampler.EpochPlan:
    """The batches of an epoch; `parts` are the pairs of each training corpus."""
    return batch_sampler.EpochPlan(
        corpus.source_lengths, corpus.target_lengths, recipe.batching, resolved["micro_tokens"],
        recipe.training.seed, epoch, static_shapes(resolved), parts, recipe.data.temperature,
    )  # fmt: skip
