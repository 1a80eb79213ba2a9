"""Updates that were skipped because their gradient was not finite."""

from __future__ import annotations

from dataclasses import replace

import torch

from mt.checkpoints.train_state import TrainState
from mt.data.bucketing import PairIndices
from mt.errors import DivergedError
from mt.runtime.host_copy import HostCopy
from mt.training.session import TrainingRun

MAX_SKIPPED = 20
"""Updates in a row whose gradient may be non-finite before the run counts as diverged."""


def collect_skipped(run: TrainingRun, state: TrainState, late: bool = False) -> TrainState:
    """Count and report skipped updates; a DivergedError after MAX_SKIPPED in a row.

    A `late` collection reads the flags that were sent at the last one, and sends those since.
    """
    finite = [] if run.flags is None else run.flags.read()
    sent, rest = run.unread[: len(finite)], run.unread[len(finite) :]
    run.flags = HostCopy(torch.stack([flag for _, _, flag in rest])) if rest else None
    if run.flags is not None and not late:
        finite, sent, rest, run.flags = finite + run.flags.read(), sent + rest, [], None
    run.unread[:] = rest
    for (step, rows, _), applied in zip(sent, finite, strict=True):
        in_a_row = 0 if applied else state.skipped_in_a_row + 1
        state = replace(state, skipped=state.skipped + (not applied), skipped_in_a_row=in_a_row)
        if not applied:
            report_skipped(run, state, step, rows)
    return state


def report_skipped(run: TrainingRun, state: TrainState, step: int, rows: PairIndices) -> None:
    """Report a skipped update; end a run that skips MAX_SKIPPED in a row."""
    if run.scaler.is_enabled() and state.skipped_in_a_row < MAX_SKIPPED:
        return  # how fp16 finds its scale
    some = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
    part = "" if run.world.size == 1 else " of rank 0"
    whose = "within their window" if run.recipe.data.streaming else "as prepared"
    what = f"the gradient is not finite at step {step}; update skipped"
    run.report.log(
        f"mt: warning[NONFINITE] {what} ({state.skipped} so far); "
        f"its {len(rows)} pairs{part}, numbered {whose}: {some}"
    )
    if state.skipped_in_a_row >= MAX_SKIPPED:
        advice = "lower optimizer.learning_rate or raise schedule.warmup_steps"
        raise DivergedError("DIVERGED", f"step {step}", what, f"{advice}; the last save is sound")
