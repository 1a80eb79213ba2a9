"""The state of a training run while it trains; what must survive a crash is in `TrainState`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from mt.config.recipe import Recipe
from mt.data.bucketing import PairIndices
from mt.data.training_data import TrainingData
from mt.runtime import distributed
from mt.runtime.distributed import World
from mt.runtime.host_copy import HostCopy
from mt.runtime.signals import StopRequest
from mt.training.determinism_trace import TraceWriter
from mt.training.ema import MovingAverage
from mt.training.flat_gradients import FlatGradients
from mt.training.graphed_step import GraphedStep
from mt.training.meter import Meter
from mt.training.reporter import Reporter
from mt.training.step import MicroBatchRunner, ModelWithLoss, accumulate_micro_batch
from mt.training.time_left import TimeLeft
from mt.training.validation_engine import ValidationEngine


@dataclass
class TrainingRun:
    """All objects of a training run."""

    recipe: Recipe
    folder: Path
    """The run directory."""
    world: World
    data: TrainingData
    module: ModelWithLoss
    """Model and objective; when sharded, the part of this rank."""
    gradients: FlatGradients | None
    """The gradients of `module` where several processes, each with the whole model, sum them."""
    unsharded_copy: ModelWithLoss | None
    """When sharded, room for a whole copy of the weights to translate with."""
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None
    scaler: torch.amp.GradScaler
    device: torch.device
    resolved: dict[str, Any]
    """`resolved.json`: precision, threads, micro_tokens, shapes and compile, chosen by trying."""
    report: Reporter
    stop: StopRequest
    graphs: GraphedStep | None
    """Replays micro-batches as CUDA graphs."""
    translator: ValidationEngine
    teacher_digest: str | None
    """The hash of the teacher, where the objective has one."""
    last_step: int | None
    """The step at which the run ends, when that is known beforehand."""
    time_left: TimeLeft
    started: float = 0.0
    """The time, on the monotonic clock, when training would have begun without interruption."""
    meter: Meter = field(default_factory=Meter)
    unread: list[tuple[int, PairIndices, Tensor]] = field(default_factory=list)
    """Step, rows and finite flag [] of the updates whose flag the host has not read yet."""
    flags: HostCopy | None = None
    """The flags of the first of them, on their way to the host."""
    late_report: Callable[[], None] | None = None
    """Reports an update whose figures are on their way to the host."""
    tracing: bool = False
    """Whether rank 0 writes a trace; all ranks then sum their losses for it."""
    trace: TraceWriter | None = None

    def eval_module(self) -> ModelWithLoss:
        """Return the module with the weights to translate with; all ranks must call this."""
        module = cast(ModelWithLoss, self.average.module) if self.average else self.module
        if self.unsharded_copy is None:
            return module
        copy = self.unsharded_copy
        with torch.no_grad():
            for whole, part in zip(copy.parameters(), module.parameters(), strict=True):
                whole.copy_(distributed.full_tensor(part))
        return copy

    @property
    def cpu_threads(self) -> int:
        """Threads that an update runs in; on another device none of them matters."""
        return int(self.resolved["threads"]) if self.device.type == "cpu" else 1

    @property
    def sync_every(self) -> int:
        """Updates between two reads of the finite flags, and two talks of several processes."""
        return 1 if self.device.type == "cpu" else 10

    @property
    def reads_late(self) -> bool:
        """Whether flags and figures are read some updates later: a GPU then never waits."""
        return self.device.type == "cuda"

    @property
    def step_runner(self) -> MicroBatchRunner:
        """What runs a micro-batch."""
        return self.graphs or accumulate_micro_batch

    @property
    def keeps_gradients(self) -> bool:
        """Whether gradients must keep their addresses."""
        return self.graphs is not None or self.gradients is not None

    @property
    def metadata(self) -> dict[str, Any]:
        """Hashes of data, vocabulary and teacher, for the manifests of checkpoints."""
        prepared = self.data.prepared
        digests = {
            "data": prepared.digest,
            "valid": prepared.valid.digest,
            "vocabulary": prepared.vocabulary.digest,
        }
        if self.teacher_digest is not None:
            digests["teacher"] = self.teacher_digest
        return digests
