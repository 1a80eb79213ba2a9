"""The training loop: from a recipe and an empty or earlier run directory to a trained model.

The same command again resumes from the last checkpoint and ends with the same weights, bit for
bit: the order of the data is a function of (seed, epoch), generators are reseeded from
(seed, step), rates are functions of the step, and the rest is one `TrainState`.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
from torch import Tensor, nn

from mt.checkpoints import averaging, checkpoint, run_directory
from mt.checkpoints.train_state import TrainState
from mt.config.recipe import Recipe
from mt.data import streaming
from mt.data.bucketing import PairIndices
from mt.errors import MachineError, Stopped
from mt.interfaces import Batch, Cursor, Objective
from mt.runtime import distributed
from mt.runtime.cpu_contention import CpuContention
from mt.runtime.distributed import SINGLE, World
from mt.runtime.lock import lock
from mt.runtime.signals import stop_requests
from mt.training import diagnosis, overfitting, schedule
from mt.training.determinism_trace import TraceWriter
from mt.training.overfitting import OverfittingState
from mt.training.reporter import Reporter, SilentReporter
from mt.training.session import TrainingRun
from mt.training.setup import archive_run, build_run
from mt.training.skipped_updates import collect_skipped
from mt.training.step import ModelWithLoss, clipped_step, compute_gradients, set_rate
from mt.training.validation import (
    Criteria,
    Validation,
    deciding_criterion,
    lower_is_better,
    validate,
)

RETRY_SECONDS = (1.0, 5.0, 15.0)
"""Waits before a checkpoint that the disk refused is written again."""

# ------------------------------------------------------------------------------ the loop


def train(
    recipe: Recipe, folder: Path, fresh: bool = False, trace: bool = False, world: World = SINGLE
) -> None:
    """Train a recipe in a run directory, from its last checkpoint on if it has one.

    Each rank calls this; rank 0 alone writes and prints. `fresh` renames the old run directory
    and starts over; `trace` writes `trace.jsonl`, a line for each update.

    Raises:
        MtError: anything that the user can mend.
        Stopped: a signal came; a checkpoint is saved.
    """
    if fresh and world.is_main and folder.exists():
        archive_run(folder)
    with (
        lock(folder / ".lock") if world.is_main else contextlib.nullcontext(),
        stop_requests(world) as stop,
        contextlib.closing(Reporter(folder) if world.is_main else SilentReporter(folder)) as report,
    ):
        run, state = build_run(recipe, folder, stop, report, world)
        reason = stop_reason(run, state)
        if reason and state.finished:
            if world.is_main:
                delete_old_checkpoints(run)
            average_last(run, state)
            report.log(f"{folder} has finished: {reason}; nothing to do (--fresh starts over)")
            return
        report.start(run.last_step, state.step, state.validated)
        run.tracing = trace
        run.trace = TraceWriter(folder, state.step, report) if trace and world.is_main else None
        run.started = time.monotonic() - state.seconds
        run.time_left.begin(state.step, run.started)
        with contextlib.closing(CpuContention(run.cpu_threads, report.log)):
            for micro_batches, after in run.data.updates(state.cursor):
                state = run_due_tasks(run, state)
                if stop_reason(run, state):
                    break
                state = train_update(run, micro_batches, state, after)
            finish_run(run, run_due_tasks(run, state))


def train_update(
    run: TrainingRun, micro_batches: list[PairIndices], state: TrainState, after: Cursor
) -> TrainState:
    """Update the weights once; return the state after it, whose cursor is `after`."""
    recipe, module, world, step = run.recipe, run.module, run.world, state.step + 1
    began = time.perf_counter()
    own = run.data.rank_micro_batches(micro_batches)
    batches = [run.data.load(rows) for rows in own]
    loaded = time.perf_counter()
    seed = derive_seed(recipe.training.seed, step, *([world.rank] if world.rank else []))
    if hasattr(module.objective, "begin"):
        cast(Any, module.objective).begin(derive_seed(recipe.training.seed, step))
    loss, split = compute_gradients(
        module, cast(Objective, module.objective), batches, run.scaler, seed, world,
        run.step_runner, run.gradients, run.keeps_gradients,
    )  # fmt: skip
    rate = schedule.rate_factor(recipe.schedule, step, run.last_step)
    rate *= recipe.optimizer.learning_rate
    norm, finite = optimizer_step(run, step, rate)
    if run.tracing:
        write_trace(run, state, batches, loss, norm, rate)
    rows = np.concatenate(own)
    run.unread.append((step, rows, finite))
    tokens, positions = run.data.count_target_tokens(micro_batches), run.data.count_positions(rows)
    run.meter.add(loss, norm, tokens, positions, batches, loaded - began)
    for batch in split:
        report_split(run, step, batch)
    state = replace(
        state, step=step, tokens=state.tokens + tokens, epoch=after.epoch, window=after.window,
        update=after.update, stream=after.stream,
    )  # fmt: skip
    publish_report(run)
    reporting = step % recipe.training.report_every == 0
    if reporting or step % run.sync_every == 0:
        state = collect_skipped(run, state, late=run.reads_late)
    if reporting:
        known = {**progress_figures(state), "learning_rate": rate}
        read = run.meter.start_reading(world)
        run.late_report = lambda: run.report.report(
            {**known, **read()}, run.time_left.estimate(step)
        )
        if not run.reads_late:
            publish_report(run)
    return state


def publish_report(run: TrainingRun) -> None:
    """Report the update whose figures are on their way to the host, if there is one."""
    report, run.late_report = run.late_report, None
    if report is not None:
        report()


def optimizer_step(run: TrainingRun, step: int, rate: float) -> tuple[Tensor, Tensor]:
    """Apply the gradients if their norm is finite; return the norm [] and whether it is finite [].

    The device decides; the host reads the flag in `collect_skipped`.
    """
    run.scaler.unscale_(run.optimizer)
    set_rate(run.optimizer, rate)
    clip = run.recipe.training.clip
    norm, finite = clipped_step(run.optimizer, run.module.parameters(), clip)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=not run.keeps_gradients)
    if run.average:
        run.average.update(run.module, step, finite)
    return norm, finite


def write_trace(
    run: TrainingRun, state: TrainState, batches: list[Batch], loss: Tensor, norm: Tensor,
    rate: float,
) -> None:  # fmt: skip
    """Write a line of the trace: rank 0's batches, and the loss, norm and rate of all ranks."""
    loss = distributed.all_reduce_sum(run.world, loss)
    if run.trace:
        place = (state.epoch, state.window, state.update)
        module = run.module if run.unsharded_copy is None else None  # sharded: has parts only
        run.trace.note(state.step + 1, place, batches, loss, norm, rate, module)


def derive_seed(*parts: int) -> int:
    """Derive a seed for torch from integers; neighbouring integers give unrelated seeds."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8]) >> 1


# --------------------------------------------------------------------- between two updates


def run_due_tasks(run: TrainingRun, state: TrainState, last: bool = False) -> TrainState:
    """Validate, save and stop, whichever is due between two updates."""
    plan, step = run.recipe.training, state.step
    better, began = False, time.perf_counter()
    validates = step and (step % plan.validate_every == 0 or last) and state.validated != step
    saves = step % plan.save_every == 0
    if validates or saves or last or run.stop.number:
        publish_report(run)
    if run.world.size == 1 or last or validates or saves or step % run.sync_every == 0:
        state = sync_stop_and_time(run, state)
    if validates:
        with run.time_left.measure("validation"):
            result = run_validation(run, run.eval_module())
        if result is not None:
            state, better = record_validation(run, collect_skipped(run, state), result)
        else:  # stopped by a signal: the validation, and with it the end, is still to come
            state = replace(sync_stop_and_time(run, state), finished="")
    must_save = better or last
    may_save = step and (must_save or saves or bool(run.stop.agreed))
    if may_save and (must_save or not is_saved(run, step)):
        state = replace(collect_skipped(run, state), scaler=run.scaler.state_dict() or None)
        with run.time_left.measure("checkpoint"):
            save_checkpoint(run, state, better)
    run.meter.since += time.perf_counter() - began  # does not count for the speed of training
    if run.stop.agreed:
        raise_stopped(run, step)
    return state


def raise_stopped(run: TrainingRun, step: int) -> NoReturn:
    """Raise Stopped on all ranks."""
    distributed.barrier(run.world)  # the launcher kills the others as soon as one exits
    name = signal.Signals(run.stop.agreed).name
    saved = f"saved in {run.folder}" if step else "nothing was trained yet"
    raise Stopped(run.stop.agreed, f"stopped by {name} at step {step}, {saved}")


def sync_stop_and_time(run: TrainingRun, state: TrainState) -> TrainState:
    """Give all ranks the same signal and the same training time."""
    seconds = time.monotonic() - run.started
    stop, seconds = distributed.all_reduce_max(run.world, run.stop.number, seconds)
    run.stop.agreed = int(stop)
    return replace(state, seconds=seconds)


def run_validation(run: TrainingRun, module: ModelWithLoss) -> Validation | None:
    """Validate a module; None when a signal to stop came meanwhile."""
    return validate(
        module, run.data.prepared, run.recipe, run.device, run.translator,
        lambda: bool(run.stop.number), run.world,
    )  # fmt: skip


def record_validation(
    run: TrainingRun, state: TrainState, result: Validation
) -> tuple[TrainState, bool]:
    """Report a validation; return the state after it, and whether it is the best so far."""
    plan = run.recipe.training
    figures = {**progress_figures(state), **result.values}
    run.report.validation(figures, result.samples[: plan.samples])
    if result.heat_map is not None:
        run.report.figure("cross_attention", *result.heat_map, step=state.step)
    criteria = result.criteria(plan.monitor)
    state = replace(check_overfitting(run, state, result), validated=state.step)
    state = replace(state, quality=result.quality)
    deciding = deciding_criterion(criteria, best_criteria(run, state))
    if not deciding:
        return replace(state, since_best=state.since_best + 1), False
    if deciding != plan.monitor:
        why = "undefined" if criteria[plan.monitor] is None else "equal or undefined before"
        name = f"{deciding} decides, as {plan.monitor} is {why}"
        run.report.log(f"the best validation so far: {name}")
    best = criteria[plan.monitor]
    return replace(
        state, best=best, best_criteria=criteria, best_step=state.step, since_best=0
    ), True


def best_criteria(run: TrainingRun, state: TrainState) -> Criteria:
    """Return the criteria of the best validation; none before the first."""
    if state.best_criteria is not None or state.best is None:
        return state.best_criteria or {}
    return {run.recipe.training.monitor: state.best}


def check_overfitting(run: TrainingRun, state: TrainState, result: Validation) -> TrainState:
    """Warn once when the model begins to overfit."""
    valid, train = (result.values.get(name) for name in ("valid_loss", "train_loss"))
    if valid is None or train is None:
        return state
    before = OverfittingState(**state.gap) if state.gap else None
    gap = overfitting.observe(before, state.step, valid, train)
    if gap is None:
        return state
    warning = overfitting.warning(gap, valid, train, run.recipe)
    if warning:
        run.report.log(warning)
        gap = replace(gap, told=True)
    return replace(state, gap=asdict(gap))


def stop_reason(run: TrainingRun, state: TrainState) -> str:
    """Return why training is over, or an empty string."""
    plan = run.recipe.training
    if plan.max_steps is not None and state.step >= plan.max_steps:
        return f"{state.step} updates made (training.max_steps)"
    if plan.max_epochs is not None and state.epoch >= plan.max_epochs:
        return f"{state.epoch} epochs made (training.max_epochs)"
    if plan.max_minutes is not None and state.seconds >= plan.max_minutes * 60:
        return f"{state.seconds / 60:.1f} minutes spent (training.max_minutes)"
    if plan.patience is not None and state.since_best >= plan.patience:
        return f"no better validation in {state.since_best} (training.patience)"
    return ""


def finish_run(run: TrainingRun, state: TrainState) -> None:
    """Validate and save for the last time, and average the last checkpoints."""
    reason = stop_reason(run, state)
    if run.trace and run.unsharded_copy is None:
        run.trace.end(state.step, run.module)
    state = run_due_tasks(run, replace(state, finished=reason), last=True)
    average_last(run, state)
    best = f"best {format_criterion(run, state)} at step {state.best_step}"
    run.report.log(f"finished: {reason}; {best}; the run is {run.folder}")
    if run.world.is_main:
        pairs = sum(run.data.prepared.corpus_sizes) or None
        diagnosis.log_remarks(run.folder, run.recipe, pairs, run.report.log)


def format_criterion(run: TrainingRun, state: TrainState) -> str:
    """Format the first defined criterion of the best validation, such as `bleu 31.20`."""
    for name, value in best_criteria(run, state).items():
        if value is not None:
            sign = -1 if name in lower_is_better(run.recipe) else 1
            return f"{name} {sign * value:.2f}"
    return run.recipe.training.monitor


# ----------------------------------------------------------------------------- checkpoints


def is_saved(run: TrainingRun, step: int) -> bool:
    """Whether a step has a checkpoint, as rank 0 sees the disk."""
    folder = run.folder / "checkpoints" / checkpoint.checkpoint_name(step)
    return distributed.from_main(run.world, folder.is_dir)


def save_checkpoint(run: TrainingRun, state: TrainState, better: bool) -> None:
    """Gather a checkpoint from all ranks; rank 0 writes it."""
    state = replace(state, stream=run.data.pack_cursor(state))
    averaged = run.average.module if run.average else None
    tensors = checkpoint.training_tensors(run.module, averaged, run.optimizer)
    model = run.eval_module().model
    if not run.world.is_main:
        return
    folder = write_checkpoint(run, state, model, tensors)
    if better:
        run_directory.mark_best(run.folder, folder)
    delete_old_checkpoints(run)


def write_checkpoint(
    run: TrainingRun, state: TrainState, model: nn.Module, tensors: dict[str, Tensor]
) -> Path:
    """Write a checkpoint folder; try again when the disk fails without being full."""
    name = checkpoint.checkpoint_name(state.step)
    waits = iter(RETRY_SECONDS)
    while True:
        try:
            return checkpoint.save_checkpoint(run.folder, name, model, state, run.metadata, tensors)
        except MachineError as error:
            seconds = next(waits, None)
            if seconds is None or error.code != "DISK":
                raise
            where, what = error.problems[0]
            message = f"{where}: {what}; trying again in {seconds:.0f} s"
            run.report.log(f"mt: warning[DISK] {message}")
            time.sleep(seconds)


def delete_old_checkpoints(run: TrainingRun) -> None:
    """Delete old checkpoints, first those that only a signal caused.

    Which checkpoints stay, and are averaged, then does not depend on where a run was stopped.
    """
    plan = run.recipe.training

    def scheduled(state: TrainState) -> bool:
        return state.step % plan.save_every == 0 or state.best_step == state.step

    keep = max(plan.keep_last, plan.average)
    run_directory.delete_old_checkpoints(run.folder, keep, scheduled)


def average_last(run: TrainingRun, state: TrainState) -> None:
    """Average the last checkpoints, if the recipe says so and it is not done yet.

    The average becomes the best checkpoint when it validates best.
    """
    plan, folder, world = run.recipe.training, run.folder, run.world
    if not plan.average:
        return
    done = distributed.from_main(world, lambda: run_directory.average_criteria(folder, state))
    criteria: Criteria = done or {}
    if done is None:
        mean = copy.deepcopy(run.eval_module())
        model = mean.model
        if world.is_main:
            averaging.load_mean(averaging.last_checkpoints(folder, plan.average), model)
        weights = distributed.tensors_from_main(world, lambda: checkpoint.model_weights(model))
        checkpoint.load_into(model, weights, folder)
        result = run_validation(run, mean)
        if result is None:  # the same command goes on here
            sync_stop_and_time(run, state)
            raise_stopped(run, state.step)
        criteria = result.criteria(plan.monitor)
        if world.is_main:
            averaged = replace(
                state,
                best=criteria[plan.monitor],
                best_criteria=criteria,
                best_step=None,
                quality=result.quality,
            )
            name = run_directory.AVERAGE
            checkpoint.save_checkpoint(folder, name, model, averaged, run.metadata)
    score = format_criterion(run, replace(state, best_criteria=criteria))
    line = f"average of the last {plan.average} checkpoints: {score}"
    if deciding_criterion(criteria, best_criteria(run, state)):
        if world.is_main:
            run_directory.mark_best(folder, folder / "checkpoints" / run_directory.AVERAGE)
        line += ", the best"
    run.report.log(line)


# -------------------------------------------------------------------------------- reports


def report_split(run: TrainingRun, step: int, batch: Batch) -> None:
    """Report a micro-batch that did not fit in memory and was cut in two."""
    rows, source = batch.source.shape
    run.report.log(
        f"mt: warning[OOM-SPLIT] step {step}: memory did not suffice for {rows} pairs of "
        f"{source} + {batch.labels.size(1)} positions; done again in two halves "
        "(a lower batching.micro_tokens avoids it)"
    )
    run.meter.splits += 1


def progress_figures(state: TrainState) -> dict[str, Any]:
    """Return the position of a run, for reports."""
    return {
        "step": state.step, "epoch": state.epoch, "total_target_tokens": state.tokens,
        "seconds": round(state.seconds, 3), "skipped": state.skipped,
        **streaming.position_figures(state.stream),
    }  # fmt: skip
