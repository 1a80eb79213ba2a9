"""The time to the end of a training, from what its updates, validations and checkpoints took.

    left = updates * seconds of an update + validations * seconds of one + saves * seconds of one

The speed of the updates is that of the last reports, so that it follows the load of the machine.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from mt.config.schema import TrainingConfig

Task = Literal["validation", "checkpoint"]
REPORTS = 20
"""Reports whose updates give the speed."""


def count_tasks(plan: TrainingConfig, first: int, last: int) -> dict[Task, int]:
    """Count the validations and checkpoints of the updates from `first` to `last`, the end.

    Each validation counts as one that is better and therefore saved. An average of checkpoints
    at the end is validated, too.
    """

    def multiples(every: int) -> int:
        return last // every - (first - 1) // every

    validates, saves = plan.validate_every, plan.save_every
    both = multiples(math.lcm(validates, saves))
    at_end, saved_at_end = last % validates == 0, last % validates == 0 or last % saves == 0
    return {
        "validation": multiples(validates) + (not at_end) + bool(plan.average),
        "checkpoint": multiples(validates) + multiples(saves) - both + (not saved_at_end),
    }


class TimeLeft:
    """Measures the tasks between updates, and estimates when a run ends."""

    def __init__(
        self, plan: TrainingConfig, last_step: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.plan, self.last_step, self.clock = plan, last_step, clock
        self.took: dict[Task, list[float]] = {"validation": [], "checkpoint": []}
        self.begin(0, clock())

    def begin(self, step: int, started: float) -> None:
        """Begin after update `step` of a training whose time counts from `started`."""
        self.started = started
        self.reports = deque([(step, self._training_time())], maxlen=REPORTS)

    @contextmanager
    def measure(self, task: Task) -> Iterator[None]:
        """Measure a task, which does not count for the speed of the updates."""
        began = self.clock()
        yield
        self.took[task].append(self.clock() - began)

    def _training_time(self) -> float:
        """Return the time on the clock without the tasks, in seconds."""
        return self.clock() - sum(map(sum, self.took.values()))

    def estimate(self, step: int) -> tuple[float, bool] | None:
        """Return the seconds left after update `step`, before its tasks; None where unknown.

        False beside them: a task that has not been measured yet comes on top.
        """
        first, then = self.reports[0]
        now = self._training_time()
        self.reports.append((step, now))
        ends: list[tuple[float, bool]] = []
        if self.plan.max_minutes is not None:
            ends.append((max(0.0, self.plan.max_minutes * 60 - self.clock() + self.started), True))
        if self.last_step is not None and step > first:
            seconds, whole = (now - then) / (step - first) * (self.last_step - step), True
            for task, count in count_tasks(self.plan, step, self.last_step).items():
                took = self.took[task]
                seconds += count * sum(took) / max(1, len(took))
                whole = whole and bool(took or not count)
            ends.append((seconds, whole))
        return min(ends, default=None)
