"""The scalars that a resumed run needs besides its tensors."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from mt.interfaces import Cursor


@dataclass(frozen=True)
class TrainState(Cursor):
    """All that a resumed run needs besides tensors; `state.json` of a checkpoint."""

    step: int = 0
    """Updates made."""
    tokens: int = 0
    """Real target tokens seen."""
    best: float | None = None
    """The value of `training.monitor` of the best validation, larger is better; None: undefined."""
    best_criteria: dict[str, float | None] | None = None
    """All values that decide, of the best validation; None in states of earlier versions."""
    best_step: int | None = None
    since_best: int = 0
    """Validations since the best one."""
    gap: dict[str, Any] | None = None
    """The `OverfittingState` of the validations so far."""
    quality: dict[str, float] | None = None
    """The `Calibration` of the last validation."""
    validated: int | None = None
    """The step of the last validation."""
    skipped: int = 0
    """Updates skipped because the gradient was not finite."""
    skipped_in_a_row: int = 0
    seconds: float = 0.0
    """Training time over all resumes."""
    scaler: dict[str, float] | None = None
    """The fp16 gradient scaler."""
    finished: str = ""
    """Why training has ended, when it has."""

    @property
    def cursor(self) -> Cursor:
        """Where the next update is read."""
        return Cursor(**{each.name: getattr(self, each.name) for each in fields(Cursor)})
