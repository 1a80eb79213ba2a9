"""Pairs that two models, one in each direction, find unlikely (Junczys-Dowmunt 2018, section 2).

With H the cross-entropy of a token in nats, the value of a pair is |H_forward - H_backward| +
(H_forward + H_backward) / 2: low where both models agree that the pair is likely. The best share
of all pairs is kept. `mt score --normalize` writes -H, a line a pair.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mt.config.schema import FilterConfig
from mt.config.section import InputFile
from mt.data.cleaning import Context, Filter, Texts, Value
from mt.errors import DataError
from mt.runtime import text_files

_ADVICE = "score the training pairs, all of them in their order, in both directions again"


class Config(FilterConfig):
    """The scores, and how many pairs are kept."""

    kind: Literal["dual_cross_entropy"] = "dual_cross_entropy"
    forward: InputFile
    """What `mt score RUN --normalize` gave to the targets of all training pairs, in order."""
    backward: InputFile
    """The same of a model of the other direction, for their sources."""
    keep: float = Field(0.8, gt=0, le=1)
    """Share of the pairs that is kept."""

    order: ClassVar[Literal["any", "kept", "all"]] = "all"


class _Scored:
    """The value of each pair, and which is the highest that is kept."""

    def __init__(self, config: Config) -> None:
        self.config, self.position = config, 0
        forward, backward = _read_scores(config.forward), _read_scores(config.backward)
        if len(forward) != len(backward):
            where = f"{config.forward} and {config.backward}"
            what = f"{len(forward)} scores against {len(backward)}"
            raise DataError("CLEAN-SCORES", where, what, _ADVICE)
        self.values = np.abs(forward - backward) - (forward + backward) / 2
        count = int(np.ceil(config.keep * len(self.values)))
        self.highest = np.partition(self.values, count - 1)[count - 1] if count else 0.0

    def check(self, sources: Texts, targets: Texts) -> list[Value | None]:
        values = self.values[self.position : self.position + len(sources)]
        self.position += len(sources)
        if len(values) < len(sources):
            raise self._different(f"more pairs than its {len(self.values)} lines")
        return [round(v, 3) if v > self.highest else None for v in values.tolist()]

    def finish(self) -> None:
        if self.position != len(self.values):
            raise self._different(f"{len(self.values)} lines for {self.position} pairs")

    def _different(self, what: str) -> DataError:
        return DataError("CLEAN-SCORES", self.config.forward, what, _ADVICE)


def build(config: Config, context: Context) -> Filter:
    """Return the filter.

    Raises:
        DataError: the scores cannot be read, or are not as many in both files.
    """
    return _Scored(config)


def _read_scores(path: str) -> NDArray[np.float32]:
    return np.fromiter(_numbers(path), np.float32)


def _numbers(path: str) -> Iterator[float]:
    for number, line in enumerate(text_files.read_lines(Path(path)), start=1):
        try:
            score = float(line)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            where, what = f"{path}:{number}", "the line is no number"
            raise DataError("CLEAN-SCORES", where, what, _ADVICE)
        yield score
