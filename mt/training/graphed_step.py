"""Forward and backward of a micro-batch as one CUDA graph for each shape, replayed.

A small model on a fast device spends its time on launching kernels; a graph launches all of
them at once. Its plain twin is `step.accumulate_micro_batch`, which it captures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from mt.interfaces import Batch
from mt.runtime.cuda_graphs import CudaGraphs, Work, capture_failed
from mt.training.step import accumulate_micro_batch

MAX_GRAPHS = 96
"""Shapes that are captured; what comes later runs plainly."""

Shape = tuple[torch.Size, torch.Size]


@dataclass
class _Captured:
    """A graph's replay, and the tensors that it reads and writes."""

    graph: Work
    batch: Batch
    counts: dict[str, Tensor]
    part: Tensor
    buffers: list[Tensor]
    """Of the model as it was captured: they must outlive the graph."""


class GraphedStep:
    """Runs micro-batches: plainly the first time a shape is seen, replayed from then on.

    The first time is the warm-up (kernels are compiled, libraries make their workspaces) and
    counts like any other. When a capture fails, everything runs plainly, after one warning.
    Randomness follows the device's generator, which is seeded anew before each update.

    Args:
        step: model and objective; its gradients get their places here, and keep them.
        tell: where a warning goes.
    """

    def __init__(self, step: nn.Module, tell: Callable[[str], None]) -> None:
        self.tell, self.broken = tell, False
        self.seen: set[Shape] = set()
        self.captured: dict[Shape, _Captured] = {}
        self.recorder = CudaGraphs(torch.device("cuda", torch.cuda.current_device()))
        for parameter in step.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def __call__(
        self, step: nn.Module, batch: Batch, counts: Mapping[str, Tensor],
        scaler: torch.amp.GradScaler,
    ) -> Tensor:  # fmt: skip
        """Add the gradient of a micro-batch; its part of the mean loss, []."""
        shape = (batch.source.shape, batch.target.shape)
        if shape in self.seen and shape not in self.captured and not self.broken:
            self._try_to_capture(shape, step, batch, counts, scaler)
        if shape in self.captured:
            return replay(self.captured[shape], batch, counts)
        if len(self.seen) < MAX_GRAPHS:
            self.seen.add(shape)
        # On the stream of the captures: autograd adds gradients on the stream that it first saw.
        return self.recorder.warm(lambda: accumulate_micro_batch(step, batch, counts, scaler))

    def _try_to_capture(
        self, shape: Shape, step: nn.Module, batch: Batch, counts: Mapping[str, Tensor],
        scaler: torch.amp.GradScaler,
    ) -> None:  # fmt: skip
        """Capture, which runs nothing; a failure leaves gradients and weights as they were."""
        static = Batch(**{f.name: getattr(batch, f.name).clone() for f in fields(batch)})
        own = {name: count.clone() for name, count in counts.items()}
        try:
            graph, part = self.recorder.record(
                lambda: accumulate_micro_batch(step, static, own, scaler)
            )
        except RuntimeError as error:
            self.broken = True
            self.captured.clear()  # with their memory
            self.tell(capture_failed(f"of {shape}", error))
            return
        self.captured[shape] = _Captured(graph, static, own, part, list(step.buffers()))


def replay(captured: _Captured, batch: Batch, counts: Mapping[str, Tensor]) -> Tensor:
    """Run a graph on other tensors of its shape; its part of the mean loss, []."""
    for field in fields(batch):
        getattr(captured.batch, field.name).copy_(getattr(batch, field.name))
    for name, count in captured.counts.items():
        count.copy_(counts[name])
    captured.graph()
    return captured.part.clone()  # the next graph may use its place
