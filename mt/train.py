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
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from mt import batching, checkpoint, distributed, files, schedule
from mt.checkpoint import TrainState
from mt.contracts import Objective
from mt.distributed import ALONE, World
from mt.errors import DivergedError, Stopped
from mt.lengths import Rows
from mt.recipe import Recipe
from mt.report import Reporter, Silence
from mt.session import Session, plan_of, set_aside, start, stop_requests
from mt.step import backward
from mt.validate import Validation, validate

MAX_SKIPPED = 20
"""Updates in a row whose gradient may be non-finite before the run counts as diverged."""

# ------------------------------------------------------------------------------ the loop


def train(recipe: Recipe, run: Path, fresh: bool = False, world: World = ALONE) -> None:
    """Train, or go on training, the recipe in a run directory.

    Each of several processes calls this; the first alone writes and speaks.

    Raises:
        MtError: whatever the user can mend.
        Stopped: a signal came; a checkpoint is saved.
    """
    if fresh and world.first and run.exists():
        set_aside(run)
    with (
        files.lock(run / ".lock") if world.first else contextlib.nullcontext(),
        stop_requests(world) as stop,
        contextlib.closing(Reporter(run) if world.first else Silence(run)) as report,
    ):
        session, state = start(recipe, run, stop, report, world)
        reason = ended(session, state)
        if reason and state.finished:
            average(session, state)
            report.tell(f"{run} has finished: {reason}; nothing to do (--fresh starts over)")
            return
        report.start(session.last_step, state.step)
        session.began = time.monotonic() - state.seconds
        for micros, after in updates(session, state):
            state = settle(session, state)
            if ended(session, state):
                break
            state = update(session, micros, state, after)
        finish(session, settle(session, state))


def updates(session: Session, state: TrainState) -> Iterator[tuple[list[Rows], TrainState]]:
    """The micro-batches of each update from `state` on, and where the run then stands."""
    recipe, at = session.recipe, state
    while True:
        epoch = plan_of(recipe, session.prepared.train, session.resolved, at.epoch)
        for window in range(at.window, len(epoch.windows)):
            made = epoch.updates(window)
            for number in range(at.update, len(made)):
                if number + 1 < len(made):
                    at = TrainState(epoch=at.epoch, window=window, update=number + 1)
                elif window + 1 < len(epoch.windows):
                    at = TrainState(epoch=at.epoch, window=window + 1)
                else:
                    at = TrainState(epoch=at.epoch + 1)
                yield made[number], at


def update(
    session: Session, micros: list[Rows], state: TrainState, after: TrainState
) -> TrainState:
    """One update of the weights, from all micro-batches of its group."""
    recipe, step, number = session.recipe, session.step, state.step + 1
    world, corpus = session.world, session.prepared.train
    began = time.perf_counter()
    shares = distributed.deal(micros, world)
    batches = [batching.moved(batching.collate(corpus, m), session.device) for m in shares]
    loaded = time.perf_counter()
    torch.manual_seed(seed_of(recipe.training.seed, number, *([world.rank] if world.rank else [])))
    objective = cast(Objective, step.objective)
    loss = backward(session.shared, objective, batches, session.scaler, world)
    session.scaler.unscale_(session.optimizer)
    clip = recipe.training.clip or float("inf")
    norm = float(distributed.whole(nn.utils.clip_grad_norm_(step.parameters(), clip, foreach=True)))
    factor = schedule.factor(recipe.schedule, number, session.last_step)
    rate = factor * recipe.optimizer.learning_rate
    finite = norm < float("inf")
    if finite or session.scaler.is_enabled():  # the scaler skips by itself and lowers its scale
        for group in session.optimizer.param_groups:
            group["lr"] = rate
        session.scaler.step(session.optimizer)
        session.scaler.update()
    session.optimizer.zero_grad()
    if session.average and finite:
        session.average.update(step, number)
    tokens = sum(int(corpus.target_lengths[rows].sum()) for rows in micros)
    session.meter.add(loss, norm, tokens, batches, loaded - began)
    state = replace(
        state,
        step=number,
        tokens=state.tokens + tokens,
        epoch=after.epoch,
        window=after.window,
        update=after.update,
        skipped=state.skipped + (not finite),
        skipped_in_a_row=0 if finite else state.skipped_in_a_row + 1,
        scaler=session.scaler.state_dict() or None,
    )
    if not finite:
        note_skipped(session, state)
    if due(number, recipe.training.report_every):
        figures = {"learning_rate": rate, **session.meter.read(world)}
        session.report.report({**progress(state), **figures})
    return state


def settle(session: Session, state: TrainState, last: bool = False) -> TrainState:
    """What is due between two updates: validate, save, obey a signal."""
    plan, step = session.recipe.training, state.step
    better, began = False, time.perf_counter()
    state = agree(session, state)
    if step and (due(step, plan.validate_every) or last) and state.validated != step:
        result = validate(
            session.best(), session.prepared, session.recipe, session.device,
            session.resolved["precision"], lambda: bool(session.stop.number), session.world,
        )  # fmt: skip
        if result is not None:
            state, better = judged(session, state, result)
        else:
            state = agree(session, state)
    wanted = better or last or due(step, plan.save_every) or bool(session.stop.agreed)
    if wanted and step and (better or last or not is_saved(session, step)):
        save(session, state, better)
    session.meter.since += time.perf_counter() - began  # not a part of training's speed
    if session.stop.agreed:
        distributed.meet(session.world)  # the launcher ends the others as soon as one has left
        name = signal.Signals(session.stop.agreed).name
        kept = f"saved in {session.run}" if step else "nothing was trained yet"
        raise Stopped(session.stop.agreed, f"stopped by {name} at step {step}, {kept}")
    return state


def agree(session: Session, state: TrainState) -> TrainState:
    """Let all processes know of the same signal and the same time."""
    seconds = time.monotonic() - session.began
    stop, seconds = distributed.most(session.world, session.stop.number, seconds)
    session.stop.agreed = int(stop)
    return replace(state, seconds=seconds)


def is_saved(session: Session, step: int) -> bool:
    """Whether there is a checkpoint of a step; only the first process sees the run directory."""
    folder = session.run / "checkpoints" / checkpoint.name_of(step)
    return distributed.of_first(session.world, folder.is_dir)


def save(session: Session, state: TrainState, better: bool) -> None:
    """A checkpoint of everything: gathered from all processes, written by the first."""
    plan, run = session.recipe.training, session.run
    averaged = session.average.module if session.average else None
    tensors = checkpoint.training_tensors(session.step, averaged, session.optimizer)
    best = session.best().model
    if not session.world.first:
        return
    name = checkpoint.name_of(state.step)
    folder = checkpoint.save(run, name, best, state, session.about, tensors)
    if better:
        checkpoint.mark_best(run, folder)
    checkpoint.prune(run, max(plan.keep_last, plan.average))


def judged(session: Session, state: TrainState, result: Validation) -> tuple[TrainState, bool]:
    """Report a validation; whether it is the best so far, and the state that knows it."""
    plan = session.recipe.training
    session.report.validation({**progress(state), **result.values}, result.samples[: plan.samples])
    if result.heat_map is not None:
        session.report.figure("cross_attention", *result.heat_map, step=state.step)
    value = result.value(plan.monitor)
    state = replace(state, validated=state.step)
    if state.best is None or value > state.best:
        return replace(state, best=value, best_step=state.step, since_best=0), True
    return replace(state, since_best=state.since_best + 1), False


def ended(session: Session, state: TrainState) -> str:
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


def finish(session: Session, state: TrainState) -> None:
    """The last validation and checkpoint, and the average of the last ones."""
    reason = ended(session, state)
    state = settle(session, replace(state, finished=reason), last=True)
    average(session, state)
    plan = session.recipe.training
    best = f"best {plan.monitor} {abs(state.best or 0):.2f} at step {state.best_step}"
    session.report.tell(f"finished: {reason}; {best}; the run is {session.run}")


def average(session: Session, state: TrainState) -> None:
    """Average the last checkpoints, if that is wanted and not done yet.

    The average becomes the best checkpoint when it validates best.
    """
    plan, run, world = session.recipe.training, session.run, session.world
    if not plan.average:
        return
    if distributed.of_first(world, lambda: checkpoint.is_average_of(run, state)):
        return
    mean = copy.deepcopy(session.best())
    if world.first:
        checkpoint.average(run, plan.average, state, mean.model, session.about)
    weights = distributed.tensors_of_first(world, lambda: checkpoint.weights_of(mean.model))
    checkpoint.fit(mean.model, weights, run)
    result = validate(
        mean, session.prepared, session.recipe, session.device,
        session.resolved["precision"], lambda: False, world,
    )  # fmt: skip
    assert result is not None
    value = result.value(plan.monitor)
    told = f"average of the last {plan.average} checkpoints: {plan.monitor} {abs(value):.2f}"
    if state.best is None or value > state.best:
        if world.first:
            checkpoint.mark_best(run, run / "checkpoints" / "average")
        told += ", the best"
    session.report.tell(told)


def due(step: int, every: int) -> bool:
    """Whether something done every so many steps is done at this one."""
    return step % every == 0


def seed_of(*parts: int) -> int:
    """A seed for torch from whole numbers; neighbours get unrelated ones."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8]) >> 1


def note_skipped(session: Session, state: TrainState) -> None:
    """Say that an update was skipped; end a run in which all are."""
    if session.scaler.is_enabled() and state.skipped_in_a_row < MAX_SKIPPED:
        return  # how fp16 finds its scale
    what = f"the gradient is not finite at step {state.step}; update skipped"
    session.report.tell(f"mt: warning[NONFINITE] {what} ({state.skipped} so far)")
    if state.skipped_in_a_row >= MAX_SKIPPED:
        advice = (
            "lower optimizer.learning_rate or raise schedule.warmup_steps; the last save is sound"
        )
        raise DivergedError("DIVERGED", f"step {state.step}", what, advice)


# -------------------------------------------------------------------------------- figures


def progress(state: TrainState) -> dict[str, Any]:
    """Where a run stands."""
    return {
        "step": state.step,
        "epoch": state.epoch,
        "total_target_tokens": state.tokens,
        "seconds": round(state.seconds, 3),
        "skipped": state.skipped,
    }
