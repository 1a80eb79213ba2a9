"""The scalars that a resumed run needs besides its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrainState:
    """All that must survive a crash besides tensors."""

    step: int = 0
    """Updates made."""
    tokens: int = 0
    """Real target tokens seen."""
    epoch: int = 0
    """The epoch of the next update, counted from 0."""
    window: int = 0
    """The window within its epoch of the next update, counted from 0."""
    update: int = 0
    """The number within its window, or its epoch when streamed, of the next update, from 0."""
    best: float | None = None
    """The best value of what is monitored, larger is better."""
    best_step: int | None = None
    since_best: int = 0
    """Validations since the best one."""
    gap: dict[str, Any] | None = None
    """What `mt.overfitting` remembers of the validations so far."""
    validated: int | None = None
    """The step of the last validation."""
    skipped: int = 0
    """Updates skipped because the gradient was not finite."""
    skipped_in_a_row: int = 0
    seconds: float = 0.0
    """Time spent training, over all sessions."""
    scaler: dict[str, float] | None = None
    """The fp16 gradient scaler."""
    stream: dict[str, Any] | None = None
    """Where this process is in a streamed corpus; in a checkpoint, where each is (`ranks`)."""
    finished: str = ""
    """Why training has ended, when it has."""
