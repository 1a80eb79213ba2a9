"""The expected chrF of a translation, from how likely the model finds it.

At each validation a line is fitted to the sentence chrF of the translations over the geometric mean
of their token probabilities: what SIL's machine.py does for drafts of Bible translations. A number
of 0 to 100 then says what a raw probability does not, since models differ in how sure they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mt.checkpoints.bundle import is_bundle, open_loaded_model
from mt.checkpoints.run_directory import is_run
from mt.checkpoints.train_state import TrainState
from mt.decoding.types import Translation
from mt.errors import ModelError

FEWEST_PAIRS = 20
"""With fewer pairs no line is fitted."""


@dataclass(frozen=True)
class Calibration:
    """The line chrF = intercept + slope * confidence."""

    slope: float
    intercept: float
    correlation: float
    """Of confidence and chrF on the validation pairs (Pearson)."""
    pairs: float
    """The number of validation pairs."""

    def expected_chrf(self, translation: Translation) -> float:
        """Return the expected chrF of a translation, 0 to 100; 0 for a blank one."""
        if not translation.text.strip():
            return 0.0
        value = self.intercept + self.slope * confidence(translation.log_probabilities)
        return min(100.0, max(0.0, value))


def confidence(log_probabilities: Sequence[float]) -> float:
    """Return the geometric mean of the token probabilities, 0 to 1; 0 without tokens."""
    if not log_probabilities:
        return 0.0
    return math.exp(math.fsum(log_probabilities) / len(log_probabilities))


def fit(confidences: Sequence[float], chrf: Sequence[float]) -> Calibration | None:
    """Fit the line by least squares; None where there are too few pairs, or all are alike."""
    x, y = np.asarray(confidences, np.float64), np.asarray(chrf, np.float64)
    if len(x) < FEWEST_PAIRS or x.std() < 1e-9 or y.std() < 1e-9:
        return None
    slope = float(((x - x.mean()) * (y - y.mean())).mean() / x.var())
    correlation = slope * float(x.std() / y.std())
    return Calibration(slope, float(y.mean()) - slope * float(x.mean()), correlation, len(x))


def as_values(calibration: Calibration | None) -> dict[str, float] | None:
    """Return a calibration as `TrainState.quality` keeps it."""
    return None if calibration is None else asdict(calibration)


def read_calibration(path: Path, checkpoint: str | None) -> Calibration:
    """Read the calibration of a run or a bundle.

    Raises:
        ModelError: it has none.
    """
    calibration = as_calibration(open_loaded_model(path, checkpoint).state)
    if calibration is None:
        what = "it has no calibration of quality"
        advice = f"a validation of {FEWEST_PAIRS} pairs or more makes one: train it for an update"
        raise ModelError("QUALITY-NONE", path, what, advice)
    return calibration


def find_calibration(path: Path, checkpoint: str | None) -> Calibration | None:
    """Return the calibration of a run or a bundle; None for a model without one."""
    if not is_run(path) and not is_bundle(path):
        return None
    return as_calibration(open_loaded_model(path, checkpoint).state)


def as_calibration(state: TrainState) -> Calibration | None:
    """Return what `TrainState.quality` keeps; None for nothing, or for other values."""
    quality = state.quality
    if quality is None or set(quality) != set(Calibration.__dataclass_fields__):
        return None
    return Calibration(**quality)
