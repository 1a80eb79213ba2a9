"""Work recorded once and replayed: a CUDA graph for each key, and what to do without.

What is recorded reads and writes fixed addresses only and never waits for the device. Its plain
twin is calling it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

import torch

from mt.runtime import memory

MAX_GRAPHS = 512
"""Recordings that are kept; what comes later runs plainly."""

Work = Callable[[], None]
Result = TypeVar("Result")


class GraphCapturer(Protocol):
    """What records work, which a device can then repeat without being told each kernel."""

    def warm(self, work: Callable[[], Result]) -> Result:
        """Run it, so that what libraries do the first time is done."""

    def record(self, work: Callable[[], Result]) -> tuple[Work, Result]:
        """What replays it, and what it gave, which a replay fills; recording runs nothing.

        Raises:
            RuntimeError: it cannot be recorded.
        """


class CudaGraphs:
    """Records CUDA graphs, all in one pool of memory: no two run at the same time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream: Any = torch.cuda.Stream(device)
        self.pool: Any = torch.cuda.graph_pool_handle()

    def warm(self, work: Callable[[], Result]) -> Result:
        """Run on the stream of the recordings: libraries make their workspaces for a stream."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        try:
            with torch.cuda.stream(self.stream):
                return work()
        finally:
            current.wait_stream(self.stream)

    def record(self, work: Callable[[], Result]) -> tuple[Work, Result]:
        """Capture a graph; see `GraphCapturer`."""
        graph = torch.cuda.CUDAGraph()
        try:
            # The outer context puts back the stream, which a capture that fails does not.
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
            random.graphsafe_set_state(random.clone_state())  # one that nobody is capturing
            raise
        return graph.replay, result


def capture_failed(what: str, error: RuntimeError) -> str:
    """The one line that tells why there is no recording."""
    return f"mt: warning[GRAPHS] no CUDA graph {what} ({memory.first_line(error)}); running without"


class GraphCache:
    """Runs work by key: plainly the first time, which warms up; recorded, then replayed after.

    Args:
        recorder: None: all runs plainly.
        tell: where the one line goes when recording fails and all runs plainly from then on.
    """

    def __init__(self, recorder: GraphCapturer | None, tell: Callable[[str], None]) -> None:
        self.recorder, self.tell = recorder, tell
        self.seen: set[Hashable] = set()
        self.recorded: dict[Hashable, Work] = {}

    def __call__(self, key: Hashable, work: Work) -> None:
        """Run what `key` stands for; `work` does the same each time it comes with it."""
        replay = self.recorded.get(key)
        if replay is None and key in self.seen and self.recorder is not None:
            replay = self._record(key, work)
        if replay is not None:
            replay()
        elif self.recorder is None:
            work()
        else:
            if len(self.seen) < MAX_GRAPHS:
                self.seen.add(key)
            self.recorder.warm(work)

    def _record(self, key: Hashable, work: Work) -> Work | None:
        assert self.recorder is not None
        try:
            replay, _ = self.recorder.record(work)
        except RuntimeError as error:
            self.recorder = None
            self.forget()
            self.tell(capture_failed("of a step of decoding", error))
            return None
        self.recorded[key] = replay
        return replay

    def forget(self) -> None:
        """Drop all recordings: what they read or write lies elsewhere now."""
        self.seen.clear()
        self.recorded.clear()
