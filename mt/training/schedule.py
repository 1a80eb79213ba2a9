"""Learning-rate schedules: pure functions from the step to a factor of the peak rate."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from mt.config.schema import ScheduleConfig


def rate_factor(config: ScheduleConfig, step: int, last_step: int | None) -> float:
    """The factor of the peak rate at update `step`, counted from 1, of `last_step`."""
    if step < config.warmup_steps:
        return step / config.warmup_steps
    if config.kind == "constant":
        return 1.0
    if config.kind == "inverse_sqrt":
        return math.sqrt(max(1, config.warmup_steps) / step)
    assert last_step is not None, "recipe.load checks it"
    # The rate would be exactly zero one step after the last: the last update still learns.
    left = max(0.0, (last_step + 1 - step) / max(1, last_step + 1 - config.warmup_steps))
    return left if config.kind == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def layer_rate_factors(names: Iterable[str], decay: float) -> dict[str, float]:
    """The factor of each parameter's rate by the place of its layer (Howard and Ruder 2018).

    The layers of a stack are found by the number in their names, and each stack is counted from
    its top: 1, decay, decay^2 ... Embeddings and positions stand below the deepest stack; what
    is in no stack, such as a last norm or an output, has 1.
    """
    placed: dict[str, tuple[str, int]] = {}
    depth: dict[str, int] = {}
    known = list(names)
    for name in known:
        found = re.match(r"(.*?)\.(\d+)\.", name)
        if found:
            placed[name] = found[1], int(found[2])
            depth[found[1]] = max(depth.get(found[1], 0), int(found[2]) + 1)
    deepest = max(depth.values(), default=0)
    factors = {}
    for name in known:
        below = 0
        if name in placed:
            stack, number = placed[name]
            below = depth[stack] - 1 - number
        elif "embedding" in name or "positions" in name:
            below = deepest
        factors[name] = decay**below
    return factors
