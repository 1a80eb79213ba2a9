"""THE loop: a recipe and a run directory in, a trained model in it out.

Whatever stops it, the same command again goes on from the last checkpoint, and ends with the
same weights, bit for bit, as if nothing had happened: the order of the data is a function of
(seed, epoch), generators are seeded anew from (seed, step), rates are functions of the step,
and the rest is one TrainState.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from mt.checkpoints import averaging, checkpoint, run_directory
from mt.checkpoints.train_state import TrainState
from mt.config.recipe import Recipe
from mt.data import streaming
from mt.data.bucketing import PairIndices
from mt.errors import DivergedError, MachineError, ModelError, Stopped
from mt.interfaces import Batch, Objective
from mt.runtime import distributed, files
from mt.runtime.distributed import SINGLE, World
from mt.runtime.signals import stop_requests
from mt.training import overfitting, schedule
from mt.training.determinism_trace import TraceWriter
from mt.training.overfitting import OverfittingState
from mt.training.reporter import Reporter, SilentReporter
from mt.training.session import TrainingRun, plan_epoch
from mt.training.setup import archive_run, build_run
from mt.training.step import compute_gradients, set_rate, step_if_finite
from mt.training.validation import Validation, validate

MAX_SKIPPED = 20
"""Updates in a row whose gradient may be non-finite before the run counts as diverged."""
RETRY_SECONDS = (1.0, 5.0, 15.0)
"""How long to wait before a save that the disk failed is tried again."""

# ------------------------------------------------------------------------------ the loop


def train(
    recipe: Recipe, run: Path, fresh: bool = False, trace: bool = False, world: World = SINGLE
) -> None:
    """Train, or go on training, the recipe in a run directory; `trace` writes its trace, too.

    Each of several processes calls this; the first alone writes and speaks.

    Raises:
        MtError: whatever the user can mend.
        Stopped: a signal came; a checkpoint is saved.
    """
    if fresh and world.first and run.exists():
        archive_run(run)
    with (
        files.lock(run / ".lock") if world.first else contextlib.nullcontext(),
        stop_requests(world) as stop,
        contextlib.closing(Reporter(run) if world.first else SilentReporter(run)) as report,
    ):
        session, state = build_run(recipe, run, stop, report, world)
        reason = stop_reason(session, state)
        if reason and state.finished:
            if world.first:
                prune_checkpoints(session)
            average_last(session, state)
            report.tell(f"{run} has finished: {reason}; nothing to do (--fresh starts over)")
            return
        report.start(session.last_step, state.step)
        session.tracing = trace
        session.trace = TraceWriter(run, state.step, report) if trace and world.first else None
        session.began = time.monotonic() - state.seconds
        for micros, after in iterate_updates(session, state):
            state = run_due_tasks(session, state)
            if stop_reason(session, state):
                break
            state = train_update(session, micros, state, after)
        finish_run(session, run_due_tasks(session, state))


def iterate_updates(
    session: TrainingRun, state: TrainState
) -> Iterator[tuple[list[PairIndices], TrainState]]:
    """The micro-batches of each update from `state` on, and where the run then stands."""
    if session.stream is not None:
        yield from session.stream.updates(state)
        return
    recipe, at = session.recipe, state
    while True:
        parts = session.prepared.parts
        epoch = plan_epoch(recipe, session.take(at.epoch), session.resolved, at.epoch, parts)
        for window in range(at.window, len(epoch.windows)):
            made = epoch.updates(window)
            if at.update >= len(made):
                what = f"window {window} of epoch {at.epoch} has no update {at.update}"
                advice = "another version of mt began this run; start over with --fresh"
                raise ModelError("RESUME-PLAN", session.run, what, advice)
            for number in range(at.update, len(made)):
                if number + 1 < len(made):
                    at = TrainState(epoch=at.epoch, window=window, update=number + 1)
                elif window + 1 < len(epoch.windows):
                    at = TrainState(epoch=at.epoch, window=window + 1)
                else:
                    at = TrainState(epoch=at.epoch + 1)
                yield made[number], at


def train_update(
    session: TrainingRun, micros: list[PairIndices], state: TrainState, after: TrainState
) -> TrainState:
    """One update of the weights, from all micro-batches of its group."""
    recipe, step, number = session.recipe, session.step, state.step + 1
    world = session.world
    began = time.perf_counter()
    shares = rank_rows(session, micros)
    batches = [session.load(rows) for rows in shares]
    loaded = time.perf_counter()
    seed = derive_seed(recipe.training.seed, number, *([world.rank] if world.rank else []))
    if hasattr(step.objective, "begin"):
        cast(Any, step.objective).begin(derive_seed(recipe.training.seed, number))
    loss, split = compute_gradients(
        session.shared, cast(Objective, step.objective), batches, session.scaler, seed, world,
        *session.graphed,
    )  # fmt: skip
    rate = schedule.rate_factor(recipe.schedule, number, session.last_step)
    rate *= recipe.optimizer.learning_rate
    norm, finite = optimizer_step(session, number, rate)
    if session.tracing:
        write_trace(session, state, batches, (loss, norm, rate))
    rows = np.concatenate(shares)
    session.unread.append((number, rows, finite))
    tokens = count_target_tokens(session, micros)
    real = sum(int(side[rows].sum()) for side in session.sides)
    session.meter.add(loss, norm, tokens, real, batches, loaded - began)
    for batch in split:
        report_split(session, number, batch)
    state = replace(
        state,
        step=number,
        tokens=state.tokens + tokens,
        epoch=after.epoch,
        window=after.window,
        update=after.update,
        stream=after.stream,
    )
    reporting = due(number, recipe.training.report_every)
    if reporting or len(session.unread) >= session.read_every:
        state = collect_skipped(session, state)
    if reporting:
        figures = {"learning_rate": rate, **session.meter.read(world)}
        session.report.report({**progress_figures(state), **figures})
    return state


def rank_rows(session: TrainingRun, micros: list[PairIndices]) -> list[PairIndices]:
    """This process's part of an update; of a stream, what it read, and as many as any other."""
    if session.stream is None:
        return distributed.split_micro_batches(micros, session.world)
    (most,) = distributed.all_reduce_max(session.world, len(micros))
    return micros + [np.array([], dtype=np.int64)] * (int(most) - len(micros))


def count_target_tokens(session: TrainingRun, micros: list[PairIndices]) -> int:
    """The real target tokens of an update, over all processes."""
    tokens = int(session.pairs.target_lengths[np.concatenate(micros)].sum())
    return (
        tokens
        if session.stream is None
        else sum(distributed.all_gather_json(session.world, tokens))
    )


def write_trace(
    session: TrainingRun,
    state: TrainState,
    batches: list[Batch],
    made: tuple[Tensor, Tensor, float],
) -> None:
    """A line of the trace: the first process's batches, and the loss, norm and rate of all."""
    loss, norm, rate = made
    loss = distributed.all_reduce_sum(session.world, loss)
    if session.trace:
        place = (state.epoch, state.window, state.update)
        step = session.step if session.plain is None else None  # sharded: only parts are here
        session.trace.note(state.step + 1, place, batches, loss, norm, rate, step)


def optimizer_step(session: TrainingRun, number: int, rate: float) -> tuple[Tensor, Tensor]:
    """Change the weights by their gradients; the gradient's norm [] and whether it is finite [].

    Where it is not finite, weights, optimizer and average stay as they are: the device decides,
    and the host learns of it in `collect_skipped`.
    """
    session.scaler.unscale_(session.optimizer)
    clip = session.recipe.training.clip or float("inf")
    norm = nn.utils.clip_grad_norm_(session.step.parameters(), clip, foreach=True)
    norm = distributed.full_tensor(norm)
    finite = norm.isfinite()
    set_rate(session.optimizer, rate)
    step_if_finite(session.optimizer, finite)
    session.scaler.update()
    session.optimizer.zero_grad(set_to_none=session.graphs is None)
    if session.average:
        session.average.update(session.step, number, finite)
    return norm, finite


def run_due_tasks(session: TrainingRun, state: TrainState, last: bool = False) -> TrainState:
    """What is due between two updates: validate, save, obey a signal."""
    plan, step = session.recipe.training, state.step
    better, began = False, time.perf_counter()
    state = sync_stop_and_time(session, state)
    if step and (due(step, plan.validate_every) or last) and state.validated != step:
        result = validate(
            session.best(), session.prepared, session.recipe, session.device,
            session.resolved["precision"], lambda: bool(session.stop.number), session.world,
        )  # fmt: skip
        if result is not None:
            state, better = record_validation(session, collect_skipped(session, state), result)
        else:  # asked to stop: the validation is still to come, and with it the end
            state = replace(sync_stop_and_time(session, state), finished="")
    wanted = better or last or due(step, plan.save_every) or bool(session.stop.agreed)
    if wanted and step and (better or last or not is_saved(session, step)):
        state = replace(collect_skipped(session, state), scaler=session.scaler.state_dict() or None)
        save_run_checkpoint(session, state, better)
    session.meter.since += time.perf_counter() - began  # not a part of training's speed
    if session.stop.agreed:
        distributed.barrier(session.world)  # the launcher ends the others as soon as one has left
        name = signal.Signals(session.stop.agreed).name
        kept = f"saved in {session.run}" if step else "nothing was trained yet"
        raise Stopped(session.stop.agreed, f"stopped by {name} at step {step}, {kept}")
    return state


def sync_stop_and_time(session: TrainingRun, state: TrainState) -> TrainState:
    """Let all processes know of the same signal and the same time."""
    seconds = time.monotonic() - session.began
    stop, seconds = distributed.all_reduce_max(session.world, session.stop.number, seconds)
    session.stop.agreed = int(stop)
    return replace(state, seconds=seconds)


def is_saved(session: TrainingRun, step: int) -> bool:
    """Whether there is a checkpoint of a step; only the first process sees the run directory."""
    folder = session.run / "checkpoints" / checkpoint.checkpoint_name(step)
    return distributed.from_main(session.world, folder.is_dir)


def save_run_checkpoint(session: TrainingRun, state: TrainState, better: bool) -> None:
    """A checkpoint of everything: gathered from all processes, written by the first."""
    if session.stream is not None:
        state = session.stream.gathered(state)
    averaged = session.average.module if session.average else None
    tensors = checkpoint.training_tensors(session.step, averaged, session.optimizer)
    best = session.best().model
    if not session.world.first:
        return
    folder = write_checkpoint(session, state, best, tensors)
    if better:
        run_directory.mark_best(session.run, folder)
    prune_checkpoints(session)


def write_checkpoint(
    session: TrainingRun, state: TrainState, best: nn.Module, tensors: dict[str, Tensor]
) -> Path:
    """Write a checkpoint; a disk that fails, but is not full, is tried again."""
    name = checkpoint.checkpoint_name(state.step)
    waits = iter(RETRY_SECONDS)
    while True:
        try:
            return checkpoint.save_checkpoint(
                session.run, name, best, state, session.about, tensors
            )
        except MachineError as error:
            seconds = next(waits, None)
            if seconds is None or error.code != "DISK":
                raise
            (where, what), *_ = error.problems
            told = f"mt: warning[DISK] {where}: {what}; trying again in {seconds:.0f} s"
            session.report.tell(told)
            time.sleep(seconds)


def prune_checkpoints(session: TrainingRun) -> None:
    """Delete old checkpoints, and first those that only a signal's coming has made.

    So what is kept, and averaged at the end, does not depend on where a run was stopped.
    """
    plan = session.recipe.training

    def planned(state: TrainState) -> bool:
        return due(state.step, plan.save_every) or state.best_step == state.step

    run_directory.delete_old_checkpoints(session.run, max(plan.keep_last, plan.average), planned)


def record_validation(
    session: TrainingRun, state: TrainState, result: Validation
) -> tuple[TrainState, bool]:
    """Report a validation; whether it is the best so far, and the state that knows it."""
    plan = session.recipe.training
    session.report.validation(
        {**progress_figures(state), **result.values}, result.samples[: plan.samples]
    )
    if result.heat_map is not None:
        session.report.figure("cross_attention", *result.heat_map, step=state.step)
    value = result.value(plan.monitor)
    state = replace(check_overfitting(session, state, result), validated=state.step)
    if math.isfinite(value) and (state.best is None or value > state.best):
        return replace(state, best=value, best_step=state.step, since_best=0), True
    return replace(state, since_best=state.since_best + 1), False


def check_overfitting(session: TrainingRun, state: TrainState, result: Validation) -> TrainState:
    """Tell when the model begins to overfit; the state that remembers how far it has come."""
    valid, train = (result.values.get(name) for name in ("valid_loss", "train_loss"))
    if valid is None or train is None:
        return state
    known = OverfittingState(**state.gap) if state.gap else None
    gap = overfitting.observe(known, state.step, valid, train)
    if gap is None:
        return state
    told = overfitting.warning(gap, valid, train, session.recipe)
    if told:
        session.report.tell(told)
        gap = replace(gap, told=True)
    return replace(state, gap=asdict(gap))


def stop_reason(session: TrainingRun, state: TrainState) -> str:
    """Why training is over, or nothing."""
    plan = session.recipe.training
    if plan.max_steps is not None and state.step >= plan.max_steps:
        return f"{state.step} updates made (training.max_steps)"
    if plan.max_epochs is not None and state.epoch >= plan.max_epochs:
        return f"{state.epoch} epochs made (training.max_epochs)"
    if plan.max_minutes is not None and state.seconds >= plan.max_minutes * 60:
        return f"{state.seconds / 60:.1f} minutes spent (training.max_minutes)"
    if plan.patience is not None and state.since_best >= plan.patience:
        return f"no better validation in {state.since_best} (training.patience)"
    return ""


def finish_run(session: TrainingRun, state: TrainState) -> None:
    """The last validation and checkpoint, and the average of the last ones."""
    reason = stop_reason(session, state)
    if session.trace and session.plain is None:
        session.trace.end(state.step, session.step)
    state = run_due_tasks(session, replace(state, finished=reason), last=True)
    average_last(session, state)
    plan = session.recipe.training
    best = f"best {plan.monitor} {abs(state.best or 0):.2f} at step {state.best_step}"
    session.report.tell(f"finished: {reason}; {best}; the run is {session.run}")


def average_last(session: TrainingRun, state: TrainState) -> None:
    """Average the last checkpoints, if that is wanted and not done yet.

    The average becomes the best checkpoint when it validates best.
    """
    plan, run, world = session.recipe.training, session.run, session.world
    if not plan.average:
        return
    value = distributed.from_main(world, lambda: run_directory.average_score(run, state))
    if value is None:
        mean = copy.deepcopy(session.best())
        if world.first:
            averaging.load_mean(averaging.last_checkpoints(run, plan.average), mean.model)
        weights = distributed.tensors_from_main(world, lambda: checkpoint.model_weights(mean.model))
        checkpoint.load_into(mean.model, weights, run)
        result = validate(
            mean, session.prepared, session.recipe, session.device,
            session.resolved["precision"], lambda: False, world,
        )  # fmt: skip
        assert result is not None
        value = result.value(plan.monitor)
        if world.first:
            known = value if math.isfinite(value) else None
            made = replace(state, best=known, best_step=None)
            checkpoint.save_checkpoint(run, run_directory.AVERAGE, mean.model, made, session.about)
    told = f"average of the last {plan.average} checkpoints: {plan.monitor} {abs(value):.2f}"
    if math.isfinite(value) and (state.best is None or value > state.best):
        if world.first:
            run_directory.mark_best(run, run / "checkpoints" / run_directory.AVERAGE)
        told += ", the best"
    session.report.tell(told)


def due(step: int, every: int) -> bool:
    """Whether something done every so many steps is done at this one."""
    return step % every == 0


def derive_seed(*parts: int) -> int:
    """A seed for torch from whole numbers; neighbours get unrelated ones."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8]) >> 1


def collect_skipped(session: TrainingRun, state: TrainState) -> TrainState:
    """Ask the device which updates since the last asking were skipped; say so, and count them.

    Raises:
        DivergedError: MAX_SKIPPED in a row were.
    """
    unread, session.unread[:] = list(session.unread), []
    if not unread:
        return state
    finite = torch.stack([flag for _, _, flag in unread]).tolist()
    for (number, rows, _), kept in zip(unread, finite, strict=True):
        in_a_row = 0 if kept else state.skipped_in_a_row + 1
        state = replace(state, skipped=state.skipped + (not kept), skipped_in_a_row=in_a_row)
        if not kept:
            report_skipped(session, state, number, rows)
    return state


def report_skipped(session: TrainingRun, state: TrainState, number: int, rows: PairIndices) -> None:
    """Say that an update was skipped; end a run in which all are."""
    if session.scaler.is_enabled() and state.skipped_in_a_row < MAX_SKIPPED:
        return  # how fp16 finds its scale
    some = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
    part = "" if session.world.size == 1 else " of rank 0"
    whose = "as prepared" if session.stream is None else "within their window"
    what = f"the gradient is not finite at step {number}; update skipped"
    session.report.tell(
        f"mt: warning[NONFINITE] {what} ({state.skipped} so far); "
        f"its {len(rows)} pairs{part}, numbered {whose}: {some}"
    )
    if state.skipped_in_a_row >= MAX_SKIPPED:
        advice = (
            "lower optimizer.learning_rate or raise schedule.warmup_steps; the last save is sound"
        )
        raise DivergedError("DIVERGED", f"step {number}", what, advice)


def report_split(session: TrainingRun, number: int, batch: Batch) -> None:
    """Say that a micro-batch did not fit in memory and was cut in two."""
    rows, source = batch.source.shape
    session.report.tell(
        f"mt: warning[OOM-SPLIT] step {number}: memory did not suffice for {rows} pairs of "
        f"{source} + {batch.labels.size(1)} positions; done again in two halves "
        "(a lower batching.micro_tokens avoids it)"
    )
    session.meter.splits += 1


# -------------------------------------------------------------------------------- figures


def progress_figures(state: TrainState) -> dict[str, Any]:
    """Where a run stands."""
    return {
        "step": state.step,
        "epoch": state.epoch,
        "total_target_tokens": state.tokens,
        "seconds": round(state.seconds, 3),
        "skipped": state.skipped,
        **streaming.position_figures(state.stream),
    }
