"""CUDA graph capture and replay: one graph for each key; plain execution where that fails.

Captured work reads and writes fixed addresses only and never waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor

from mt.runtime import memory

Result = TypeVar("Result")


class GraphCapturer(Protocol):
    """Captures work so that a device can repeat it without a launch of each kernel."""

    def warm_up(self, work: Callable[[], Result]) -> Result:
        """Run the work, which initialises what libraries need."""

    def capture(self, work: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """Return a replay of the work and the result that it fills, without running the work.

        Raises:
            RuntimeError: the work cannot be captured.
        """


class CudaGraphs:
    """Captures CUDA graphs, all in one memory pool: no two run at the same time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream: Any = torch.cuda.Stream(device)
        self.pool: Any = torch.cuda.graph_pool_handle()

    def warm_up(self, work: Callable[[], Result]) -> Result:
        """Run on the capturing stream: libraries allocate their workspaces for each stream."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        try:
            with torch.cuda.stream(self.stream):
                return work()
        finally:
            current.wait_stream(self.stream)

    def capture(self, work: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """Capture a graph; see `GraphCapturer`."""
        graph = torch.cuda.CUDAGraph()
        try:
            # The outer context restores the stream, which a capture that fails does not.
            with (
                torch.cuda.device(self.device),
                torch.cuda.stream(torch.cuda.current_stream(self.device)),
                torch.cuda.graph(
                    graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"
                ),
            ):
                result = work()
        except RuntimeError:
            random = torch.cuda.default_generators[self.stream.device_index]
            random.graphsafe_set_state(random.clone_state())  # one that no graph captures
            raise
        return graph.replay, result


class GraphCache:
    """Runs work by key: plainly the first time, which warms up, then captured and replayed.

    Everything runs plainly when `capturer` is None or a capture has failed, which `log` reports
    once. The work of keys beyond `max_graphs` runs plainly, too.
    """

    def __init__(
        self, capturer: GraphCapturer | None, log: Callable[[str], None], name: str = "",
        max_graphs: int = 512,
    ) -> None:  # fmt: skip
        self.capturer, self.log, self.name, self.max_graphs = capturer, log, name, max_graphs
        self.failed = False
        self.seen: set[Hashable] = set()
        self.captured: dict[Hashable, tuple[Callable[[], None], list[Tensor], Any]] = {}
        """The replay of each key, its inputs and its result."""

    def __call__(self, key: Hashable, work: Callable[..., Result], *inputs: Tensor) -> Result:
        """Return `work(*inputs)`; the next replay of the key overwrites its tensors.

        Equal keys mean equal work and shapes of inputs. Other tensors that the work reads keep
        their addresses until `forget`.
        """
        if self.capturer is None:
            return work(*inputs)
        if key in self.seen and key not in self.captured and not self.failed:
            self._capture(self.capturer, key, work, inputs)
        if key in self.captured:
            replay, static, result = self.captured[key]
            for old, new in zip(static, inputs, strict=True):
                old.copy_(new)
            replay()
            return cast(Result, result)
        if len(self.seen) < self.max_graphs:
            self.seen.add(key)
        return self.capturer.warm_up(lambda: work(*inputs))

    def _capture(
        self, capturer: GraphCapturer, key: Hashable, work: Callable[..., Result],
        inputs: tuple[Tensor, ...],
    ) -> None:  # fmt: skip
        static = [each.clone() for each in inputs]
        try:
            replay, result = capturer.capture(lambda: work(*static))
        except RuntimeError as error:
            self.failed = True
            self.forget()
            why = f"of {self.name or key} ({memory.first_line(error)})"
            self.log(f"mt: warning[GRAPHS] no CUDA graph {why}; running without")
        else:
            self.captured[key] = replay, static, result

    def forget(self) -> None:
        """Drop all graphs, since tensors that they use have moved."""
        self.seen.clear()
        self.captured.clear()
