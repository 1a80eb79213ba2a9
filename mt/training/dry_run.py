"""A dry run: a few updates and a validation with all real parts, and the forecast from them.

It writes the cache of prepared data and nothing else, and its weights are dropped at the end.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mt.checkpoints import checkpoint
from mt.checkpoints.train_state import TrainState
from mt.config.plugins import plugin
from mt.config.recipe import Recipe
from mt.data import process_pool
from mt.data.batch_sampler import plan_epoch
from mt.data.bucketing import PairIndices
from mt.data.cache import PreparedData
from mt.data.prepare import prepare
from mt.errors import MachineError
from mt.interfaces import Cursor
from mt.runtime import distributed, files, memory
from mt.runtime.cpu_contention import CpuContention
from mt.runtime.distributed import SINGLE, World
from mt.runtime.signals import StopRequest
from mt.training import autotune, finetuning, forecast
from mt.training.forecast import Costs, Forecast
from mt.training.loop import train_update
from mt.training.meter import peak_memory
from mt.training.reporter import LineReporter, SilentReporter
from mt.training.session import TrainingRun
from mt.training.setup import assemble_run, open_device, prepare_data
from mt.training.time_left import count_tasks
from mt.training.validation import group_by_direction, validate
from mt.training.validation_engine import ValidationEngine

if TYPE_CHECKING:
    from mt.decoding.text_translator import TextTranslator

WINDOWS = 10
"""Windows of the first epoch that are searched for the largest micro-batches."""
CHUNK = 5
"""Updates between two looks at the clock."""
SECONDS, MOST_SECONDS = 8.0, 60.0
"""Least time of the updates that are measured, and most where they are slow."""
UPDATES = 25
"""Least number of updates that are measured: few of them may have much padding, or little."""
SENTENCES = 128
"""Most validation sentences of a direction that are translated."""
NEVER = 10**9


def forecast_training(recipe: Recipe, folder: Path, world: World = SINGLE) -> Forecast:
    """Try a training whose run directory would be `folder`; return what all of it needs.

    Each rank calls this. Where the run exists, what it resolved is taken, but not its weights.

    Raises:
        MachineError: it does not fit in memory or on the disk; names the key to lower.
        MtError: whatever else would end the training.
    """
    plan = recipe.training.model_copy(update={"report_every": NEVER})
    recipe = recipe.model_copy(update={"training": plan})
    report = LineReporter(folder) if world.is_main else SilentReporter(folder)
    stop = StopRequest(world)
    device, threads = open_device(recipe, world)
    prepare_apart(recipe, folder, report.log, world)
    prepared = prepare_data(recipe, folder, stop, report, world)
    free = free_memory(device, world)
    check_model(recipe, prepared, device, world)
    run = assemble_run(recipe, folder, None, prepared, device, threads, stop, report, world)
    forecast.check_end(plan, run.last_step)
    check_micro_batch(run)
    from torch.utils.tensorboard import SummaryWriter  # noqa: F401  a training has it in memory

    with contextlib.closing(CpuContention(run.cpu_threads, report.log)):
        updates = measure_updates(run)
        validation = measure_validation(run)
        saved = measure_checkpoint(run, updates.state)
    made = predict(run, updates, validation, saved, free)
    forecast.check_disk(made)
    return made


# ------------------------------------------------------------------------- before it begins


def prepare_apart(recipe: Recipe, folder: Path, log: Callable[[str], None], world: World) -> None:
    """Prepare the data in a process of its own, whose memory does not count for the training.

    Several processes prepare them within rank 0.
    """
    if world.size > 1:
        return

    def work(_: None) -> None:
        prepare(recipe, log, finetuning.inherited_vocabulary(recipe, folder))

    for _ in process_pool.map_in_order(work, [None], 2 if hasattr(os, "fork") else 1):
        pass


def check_model(recipe: Recipe, prepared: PreparedData, device: torch.device, world: World) -> None:
    """Raise a MachineError when the weights and what goes with them do not fit in memory.

    A model of the user's own may not allow to be built without memory; its size is then unknown.
    """
    build = plugin("models", recipe.model.kind).build
    try:
        with torch.device("meta"):
            model: nn.Module = build(recipe.model, prepared.vocabulary)
    except (NotImplementedError, RuntimeError):
        return
    shares = world.size if recipe.runtime.sharding == "fsdp" else 1
    needed = autotune.state_bytes(model) / shares
    forecast.check_memory(free_memory(device, world), needed, 0.0, 0, 0)


def check_micro_batch(run: TrainingRun) -> None:
    """Raise a MachineError when a micro-batch does not fit in the main memory.

    On a CUDA device autotuning has tried that.
    """
    if run.device.type != "cpu":
        return
    fixed = autotune.state_bytes(run.module)
    token = autotune.token_bytes(run.module, run.data.pairs, run.device)
    room, tokens = free_memory(run.device, run.world), run.resolved["micro_tokens"]
    forecast.check_memory(room, fixed, token, tokens, 2 * run.recipe.data.max_length)


def free_memory(device: torch.device, world: World) -> int | None:
    """Return the bytes that are free for this process; processes on CPUs share the memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = memory.available_bytes()
    return None if free is None else free // world.local_size


# --------------------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Updates:
    """What was measured of some updates."""

    seconds: float
    """Seconds of one."""
    padding: float
    """Share of padding."""
    activations: int
    """Bytes that the forward pass of the largest micro-batch keeps."""
    state: TrainState
    """The state after the last one."""


def measure_updates(run: TrainingRun) -> Updates:
    """Make some updates and measure them.

    Those of the largest micro-batches come first, as they decide the memory.
    """
    updates = run.data.updates(Cursor())
    first, after = next(updates)  # the pairs of a stream are then those of its first window
    largest = hardest_updates(run) or [first]
    batch = run.data.load(max(run.data.rank_micro_batches(largest[0]), key=len))
    activations = autotune.activation_bytes(run.module, batch)
    state = TrainState()
    for micro_batches in [first, *largest]:
        state = train_update(run, micro_batches, state, after)
    if run.data.epochs is not None:
        run.data.epochs(1)  # is made beside the updates, once an epoch: not beside those measured
    _wait(run)
    splits = run.meter.splits
    run.meter.clear()
    began, count, seconds = time.perf_counter(), 0, 0.0
    while seconds < SECONDS or (count < UPDATES and seconds < MOST_SECONDS):
        for micro_batches, after in islice(updates, CHUNK):
            state = train_update(run, micro_batches, state, after)
        _wait(run)
        (seconds,) = distributed.all_reduce_max(run.world, time.perf_counter() - began)
        count += CHUNK
    if splits + run.meter.splits:
        what = "does not fit: memory did not suffice for a micro-batch, which was cut in two"
        advice = f"lower batching.micro_tokens, which is {run.resolved['micro_tokens']} here"
        raise MachineError("FIT-MEMORY", "batching.micro_tokens", what, advice)
    padding = 1 - run.meter.real / max(1, run.meter.padded_tokens)
    return Updates(seconds / count, padding, activations, state)


def _wait(run: TrainingRun) -> None:
    """Wait until the device has done what it was given."""
    if run.device.type == "cuda":
        torch.cuda.synchronize(run.device)


def hardest_updates(run: TrainingRun) -> list[list[PairIndices]]:
    """Return updates with the most padded source, target and attention positions.

    None of streamed data, whose longest pair is not known.
    """
    if run.data.prepared.train is None:
        return []
    data = run.data
    plan = plan_epoch(run.recipe, data.pairs, data.resolved, 0, data.prepared.corpus_sizes)
    windows = range(min(WINDOWS, len(plan.windows)))
    updates = [update for window in windows for update in plan.updates(window)]
    sizes = [np.max([_count_positions(run, rows) for rows in update], axis=0) for update in updates]
    return [updates[row] for row in np.argmax(sizes, axis=0)]


def _count_positions(run: TrainingRun, rows: PairIndices) -> tuple[int, int, int]:
    """Return the source, target and attention positions of a micro-batch."""
    sides = run.data.pairs.source_lengths, run.data.pairs.target_lengths
    source, target = (int(side[rows].max()) for side in sides)
    attended = source * source + target * target + source * target
    return len(rows) * source, len(rows) * target, len(rows) * attended


class TimedEngine(ValidationEngine):
    """The engine of a validation, with the seconds that it was in use."""

    seconds = 0.0

    @contextmanager
    def open(self, model: nn.Module) -> Iterator[TextTranslator]:
        """Yield an engine as `ValidationEngine` does, and measure."""
        began = time.perf_counter()
        with super().open(model) as engine:
            yield engine
        self.seconds += time.perf_counter() - began


def measure_validation(run: TrainingRun) -> float:
    """Return the seconds of a validation.

    Only some sentences are translated. The model cannot translate yet, so the length of each
    translation is prescribed: that of the references, relative to their sources.
    """
    recipe, prepared = run.recipe, run.data.prepared
    wanted = group_by_direction(prepared.valid_pairs, recipe.training.validate_sentences)
    some = [group[:: -(-len(group) // SENTENCES)] for group in wanted.values()]
    sampled = replace(prepared, valid_pairs=[pair for group in some for pair in group])
    lengths = prepared.valid.source_lengths.sum(), prepared.valid.target_lengths.sum()
    ratio = min(recipe.search.max_length_ratio, float(lengths[1] / lengths[0]))
    search = recipe.search.model_copy(
        update={
            "max_length_ratio": ratio, "max_length_extra": 1, "min_length": recipe.data.max_length,
        }
    )  # fmt: skip
    recipe = recipe.model_copy(update={"search": search})
    engine = TimedEngine(prepared.vocabulary, recipe, run.device, run.translator.precision)
    began = time.perf_counter()
    validate(run.eval_module(), sampled, recipe, run.device, engine, lambda: False, run.world)
    _wait(run)
    rest = time.perf_counter() - began - engine.seconds
    more = sum(map(len, wanted.values())) / max(1, len(sampled.valid_pairs))
    return distributed.all_reduce_max(run.world, rest + more * engine.seconds)[0]


@dataclass(frozen=True)
class Saved:
    """The sizes of a checkpoint in bytes, and the seconds that it takes, without the disk."""

    model: int
    whole: int
    seconds: float


def measure_checkpoint(run: TrainingRun, state: TrainState) -> Saved:
    """Gather a checkpoint from all ranks, and make its bytes on rank 0, without writing them."""
    began = time.perf_counter()
    averaged = run.average.module if run.average else None
    tensors = checkpoint.training_tensors(run.module, averaged, run.optimizer)
    model, parts = run.eval_module().model, dict[str, bytes]()
    if run.world.is_main:
        state = replace(state, stream=None)
        parts = checkpoint.serialise_checkpoint(model, state, tensors)
        files.describe_parts(parts)
    whole = sum(map(len, parts.values()))
    return Saved(len(parts.get(checkpoint.MODEL, b"")), whole, time.perf_counter() - began)


# -------------------------------------------------------------------------- what is predicted


def predict(
    run: TrainingRun, measured: Updates, validation: float, saved: Saved, free: int | None
) -> Forecast:
    """Predict a whole training from what was measured; all ranks must call this."""
    plan, data, prepared = run.recipe.training, run.data, run.data.prepared
    costs = Costs(measured.seconds, validation, saved.seconds)
    updates = forecast.count_updates(plan, run.last_step, costs)
    tasks = count_tasks(plan, 1, updates)
    at_end, at_most = forecast.disk_bytes(plan, tasks["checkpoint"], saved.whole, saved.model)
    weights = list(run.module.parameters())
    moments = [each for state in run.optimizer.state.values() for each in state.values()]
    train, epochs = prepared.train, None
    if train is not None:
        first = plan_epoch(run.recipe, data.pairs, data.resolved, 0, prepared.corpus_sizes)
        epochs = updates / len(first)
    sides = data.pairs.source_lengths, data.pairs.target_lengths
    (peak,) = distributed.all_reduce_max(run.world, peak_memory())
    return Forecast(
        device=run.device.type, processes=run.world.size, precision=run.module.precision,
        pairs=None if train is None else len(train), valid_pairs=len(prepared.valid),
        longest=(int(sides[0].max()), int(sides[1].max())), pieces=prepared.vocabulary.size,
        parameters=sum(p.numel() for p in run.module.model.parameters()),
        micro_tokens=run.resolved["micro_tokens"], padding=measured.padding, updates=updates,
        epochs=epochs, validations=tasks["validation"], checkpoints=tasks["checkpoint"],
        costs=costs, seconds=forecast.training_seconds(plan, updates, costs),
        weight_bytes=_count_bytes(weights),
        gradient_bytes=_count_bytes([p for p in weights if p.requires_grad]),
        optimizer_bytes=_count_bytes(moments), activation_bytes=measured.activations,
        peak_bytes=int(peak), free_memory_bytes=free, checkpoint_bytes=saved.whole,
        disk_bytes=at_end, most_disk_bytes=at_most, free_disk_bytes=files.free_bytes(run.folder),
    )  # fmt: skip


def _count_bytes(tensors: Sequence[Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)
