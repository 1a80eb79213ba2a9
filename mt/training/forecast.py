"""What a training will need: plain data from a dry run, and what follows from it.

Time is that of the updates, validations and checkpoints, without preparing the data. A run that
`training.patience` ends is shorter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mt.config.schema import TrainingConfig
from mt.errors import ConfigError, MachineError
from mt.training.reporter import format_duration
from mt.training.time_left import count_tasks


@dataclass(frozen=True)
class Costs:
    """Seconds of what a run repeats."""

    update: float
    validation: float
    checkpoint: float


@dataclass(frozen=True)
class Forecast:
    """The sizes of a training, and what it needs of a machine."""

    device: str
    processes: int
    precision: str
    pairs: int | None
    """Training pairs; None where they are streamed."""
    valid_pairs: int
    longest: tuple[int, int]
    """Most source and target pieces of a training pair."""
    pieces: int
    parameters: int
    micro_tokens: int
    """Padded tokens of a micro-batch."""
    padding: float
    """Share of padding in a batch."""
    updates: int
    epochs: float | None
    """Passes over the corpus; None where it is streamed."""
    validations: int
    checkpoints: int
    costs: Costs
    seconds: float
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    """Of the forward pass of the largest micro-batch."""
    peak_bytes: int
    """Most bytes of a process: of the CUDA device, else of the main memory, all included."""
    free_memory_bytes: int | None
    checkpoint_bytes: int
    disk_bytes: int
    """Checkpoints at the end, when the best is one of the last."""
    most_disk_bytes: int
    """Checkpoints at the worst moment: one is written, and the best is an old one."""
    free_disk_bytes: int


def check_end(plan: TrainingConfig, last_step: int | None) -> None:
    """Raise a ConfigError when nothing but epochs of unknown length ends a training."""
    if last_step is None and plan.max_minutes is None:
        what = "its end is not known: an epoch of streamed data has no known length"
        advice = "set training.max_steps or training.max_minutes, and run this again"
        raise ConfigError("DRY-RUN", "training.max_epochs", what, advice)


def count_updates(plan: TrainingConfig, last_step: int | None, costs: Costs) -> int:
    """Return the updates until `last_step`, or until `training.max_minutes` are over."""
    limits = [] if last_step is None else [last_step]
    if plan.max_minutes is not None:
        tasks = costs.validation / plan.validate_every + costs.checkpoint / plan.save_every
        limits.append(max(1, round(plan.max_minutes * 60 / (costs.update + tasks))))
    return min(limits)


def training_seconds(plan: TrainingConfig, updates: int, costs: Costs) -> float:
    """Return the seconds of a training of some updates."""
    tasks = count_tasks(plan, 1, updates)
    seconds = updates * costs.update + tasks["validation"] * costs.validation
    return seconds + tasks["checkpoint"] * costs.checkpoint


def disk_bytes(plan: TrainingConfig, saved: int, whole: int, model: int) -> tuple[int, int]:
    """Return the bytes of the checkpoints at the end, and at the worst moment before.

    `saved` checkpoints of `whole` bytes are written; an average has `model` bytes.
    """
    kept = min(saved, max(plan.keep_last, plan.average))
    average = model if plan.average else 0
    at_end = kept * whole + average
    return at_end, at_end + (min(saved, kept + 2) - kept) * whole


def check_disk(forecast: Forecast) -> None:
    """Raise a MachineError when the checkpoints do not fit on the disk."""
    if forecast.most_disk_bytes > forecast.free_disk_bytes:
        needed, free = map(format_bytes, (forecast.most_disk_bytes, forecast.free_disk_bytes))
        what = f"does not fit: the checkpoints take {needed} on a disk with {free} free"
        advice = "lower training.keep_last (and training.average), or free some space"
        raise MachineError("FIT-DISK", "training.keep_last", what, advice)


def check_memory(room: int | None, fixed: float, token: float, tokens: int, least: int) -> None:
    """Raise a MachineError when a training does not fit in `room` bytes; None: unknown.

    Args:
        fixed: bytes of weights, gradients, optimizer and copies.
        token: bytes of a padded token of a micro-batch.
        tokens: padded tokens of a micro-batch.
        least: fewest padded tokens that `data.max_length` allows.
    """
    needed = fixed + token * tokens
    if room is None or needed <= room:
        return
    what = f"does not fit: about {format_bytes(needed)} are needed, {format_bytes(room)} are free"
    if fixed > room:
        where, advice = "model", "lower model.d_model, the number of layers or vocabulary.size"
    elif fixed + token * min(tokens, least) > room:
        where, advice = "data.max_length", "lower it, or the sizes of the model"
    else:
        where = "batching.micro_tokens"
        advice = f"lower batching.micro_tokens from {tokens} to {int((room - fixed) / token)}"
    raise MachineError("FIT-MEMORY", where, what, advice)


def format_forecast(forecast: Forecast) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of each figure, in a fixed order."""
    f, costs = forecast, forecast.costs
    each = " of each process" if f.processes > 1 else ""
    processes = f"{f.processes} process{'es' if f.processes > 1 else ''}"
    yield "device", f"{f.device}, {processes}, {f.precision}"
    train = "streamed" if f.pairs is None else f"{f.pairs:,}"
    yield "pairs", f"{train} for training, {f.valid_pairs:,} for validation"
    yield "longest pair", f"{f.longest[0]} source, {f.longest[1]} target pieces"
    yield "vocabulary", f"{f.pieces:,} pieces"
    yield "parameters", f"{f.parameters:,}"
    yield "micro-batch", f"{f.micro_tokens:,} padded tokens"
    yield "padding", f"{100 * f.padding:.1f} %"
    yield "updates", f"{f.updates:,}"
    yield "epochs", "unknown" if f.epochs is None else f"{f.epochs:.1f}"
    yield "update", f"{costs.update:.3f} s"
    yield "validations", f"{f.validations:,} of {costs.validation:.1f} s"
    yield "saves", f"{f.checkpoints:,} of {costs.checkpoint:.2f} s"
    yield "time", format_duration(f.seconds)
    yield "weights", format_bytes(f.weight_bytes)
    yield "gradients", format_bytes(f.gradient_bytes)
    yield "optimizer", format_bytes(f.optimizer_bytes)
    yield "activations", format_bytes(f.activation_bytes)
    free = "unknown" if f.free_memory_bytes is None else format_bytes(f.free_memory_bytes)
    yield "memory", f"{format_bytes(f.peak_bytes)}{each} at most, {free} free"
    yield "checkpoint", format_bytes(f.checkpoint_bytes)
    most, free = format_bytes(f.most_disk_bytes), format_bytes(f.free_disk_bytes)
    yield "disk", f"{format_bytes(f.disk_bytes)} at the end, {most} at most, {free} free"


def format_bytes(count: float) -> str:
    """Format bytes as MB, or as GB from a thousand MB on."""
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.2f} GB"
