"""Learning-rate schedules: pure functions from the step to a factor of the peak rate."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from mt.config.schema import ScheduleConfig


def rate_factor(config: ScheduleConfig, step: int, last_step: int | None) -> float:
    """Return the factor of the peak rate at update `step`, counted from 1, of `last_step`."""
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
    """Return the factor of each parameter's rate by its layer (Howard and Ruder 2018).

    The layers of a stack are numbered in their names. From the top of each stack down the factors
    are 1, decay, decay^2 ... Embeddings and positions are below the deepest stack; what is in no
    stack, such as a last norm or an output, has 1.
    """
    names = list(names)
    layers: dict[str, tuple[str, int]] = {}
    depth: dict[str, int] = {}
    for name in names:
        match = re.match(r"(.*?)\.(\d+)\.", name)
        if match:
            stack, number = layers[name] = match[1], int(match[2])
            depth[stack] = max(depth.get(stack, 0), number + 1)
    deepest = max(depth.values(), default=0)

    def layers_above(name: str) -> int:
        if name in layers:
            stack, number = layers[name]
            return depth[stack] - 1 - number
        return deepest if "embedding" in name or "positions" in name else 0

    return {name: decay ** layers_above(name) for name in names}
