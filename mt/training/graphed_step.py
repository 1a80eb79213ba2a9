"""Forward and backward of a micro-batch as one CUDA graph for each shape, replayed.

A small model on a fast device spends its time on launching kernels; a graph launches all of
them at once. Its plain twin is `step.accumulate_micro_batch`, which it captures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields

import torch
from torch import Tensor, nn

from mt.interfaces import Batch
from mt.runtime.cuda_graphs import GraphCache, GraphCapturer
from mt.training.step import accumulate_micro_batch

MAX_GRAPHS = 96
"""Shapes that are captured; others run plainly."""


class GraphedStep:
    """Runs the micro-batches of `module`: plainly the first time of a shape, then replayed.

    The first time is the warm-up (kernels are compiled, libraries allocate their workspaces) and
    counts like any other. When a capture fails, everything runs plainly, after one warning.
    Randomness follows the device's generator, which is seeded before each update. Gradients get
    their addresses here and keep them.
    """

    def __init__(
        self, module: nn.Module, log: Callable[[str], None], capturer: GraphCapturer
    ) -> None:
        # Plain passes, too, run on the capturing stream (`GraphCapturer.warm_up`): autograd adds
        # gradients on the stream of their first addition.
        self.graphs = GraphCache(capturer, log, max_graphs=MAX_GRAPHS)
        self.captured = self.graphs.captured
        for parameter in module.parameters():
            if parameter.grad is None:  # else it is a part of `FlatGradients`
                parameter.grad = torch.zeros_like(parameter)

    def __call__(
        self, module: nn.Module, batch: Batch, counts: Mapping[str, Tensor],
        scaler: torch.amp.GradScaler,
    ) -> Tensor:  # fmt: skip
        """Add the gradient of a micro-batch; return its part of the mean loss, []."""
        names = [field.name for field in fields(Batch)]

        def work(*tensors: Tensor) -> tuple[Tensor, list[Tensor]]:
            inputs = Batch(*tensors[: len(names)])
            own = dict(zip(counts, tensors[len(names) :], strict=True))
            part = accumulate_micro_batch(module, inputs, own, scaler)
            return part, list(module.buffers())  # which must outlive the graph

        tensors = [getattr(batch, name) for name in names]
        shape = (batch.source.shape, batch.target.shape)
        part, _ = self.graphs(shape, work, *tensors, *counts.values())
        return part.clone()  # the next graph may use its memory
