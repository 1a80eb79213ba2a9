"""What a training works with: made from a recipe, resolved by trying, put back on a resume."""

from __future__ import annotations

import contextlib
import copy
import resource
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from mt import batching, checkpoint, distributed, files
from mt.averaging import MovingAverage
from mt.checkpoint import TrainState
from mt.config import plugin
from mt.contracts import Batch, Objective, Seq2Seq
from mt.distributed import Precision, World
from mt.errors import ConfigError, DataError, Stopped
from mt.evaluate import metrics
from mt.prepare import Prepared, prepare
from mt.recipe import Recipe, dump
from mt.report import Reporter
from mt.step import TrainStep, backward

CHANGEABLE = (
    "training.max_", "training.report_every", "training.validate_every", "training.save_every",
    "training.keep_last", "training.patience", "training.samples", "training.validate_sentences",
    "data.processes", "data.test", "search.", "evaluation.", "runtime.",
)  # fmt: skip
"""Keys that a resumed run may change; all others would make it another run."""


class StopRequest:
    """Whether SIGINT or SIGTERM has come; a second one ends a program of one process at once."""

    number = 0
    """The signal that came to this process."""
    agreed = 0
    """The signal that came to any process, as all knew it at the last step."""

    def __init__(self, world: World) -> None:
        self.world = world

    def handle(self, number: int, frame: object) -> None:
        """Remember the signal."""
        if self.number and self.world.size == 1:  # a launcher may well tell it twice
            raise Stopped(number, "stopped at once, by a second signal; the last save is intact")
        self.number = number


@contextlib.contextmanager
def stop_requests(world: World) -> Iterator[StopRequest]:
    """Listen to SIGINT and SIGTERM while inside."""
    request = StopRequest(world)
    before = {s: signal.signal(s, request.handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Session:
    """What a training works with; everything that changes and must survive is in TrainState."""

    recipe: Recipe
    run: Path
    world: World
    prepared: Prepared
    step: TrainStep
    """Model and objective; when sharded, this process's part of them."""
    shared: nn.Module
    """What the gradient is taken through: `step`, or what keeps its copies equal."""
    plain: TrainStep | None
    """When sharded, room for a whole copy of the weights to translate with."""
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None
    scaler: torch.amp.GradScaler
    device: torch.device
    resolved: dict[str, Any]
    report: Reporter
    stop: StopRequest
    last_step: int | None
    began: float = 0.0
    """The time, on the monotonic clock, when training would have begun without interruption."""
    meter: Meter = field(default_factory=lambda: Meter())

    def best(self) -> TrainStep:
        """Model and objective with the weights to translate with; all processes must ask."""
        best = cast(TrainStep, self.average.module) if self.average else self.step
        if self.plain is None:
            return best
        with torch.no_grad():
            for mine, theirs in zip(self.plain.parameters(), best.parameters(), strict=True):
                mine.copy_(distributed.whole(theirs))
        return self.plain

    @property
    def about(self) -> dict[str, Any]:
        """What a checkpoint belongs to."""
        train = self.prepared.train.digest
        return {"data": train, "vocabulary": self.prepared.vocabulary.digest}


class Meter:
    """Figures since the last report."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.loss: list[Tensor] = []
        self.norm, self.tokens, self.slots, self.real, self.wait = 0.0, 0, 0, 0, 0.0
        self.since = time.perf_counter()

    def add(
        self, loss: Tensor, norm: float, tokens: int, batches: list[Batch], wait: float
    ) -> None:
        """Count one update."""
        self.loss.append(loss)
        self.norm, self.tokens, self.wait = norm, self.tokens + tokens, self.wait + wait
        for batch in batches:
            self.slots += batch.source.numel() + batch.labels.numel()
            self.real += int(batch.source_lengths.sum() + batch.target_lengths.sum())

    def read(self, world: World) -> dict[str, float]:
        """The figures; and begin anew.

        Of several processes, padding, waiting and memory are those of the first.
        """
        loss = float(distributed.total(world, torch.stack(self.loss).mean()))
        seconds = max(time.perf_counter() - self.since, 1e-9)
        figures = {
            "loss": loss,
            "grad_norm": self.norm,
            "target_tokens": self.tokens,
            "target_tokens_per_second": self.tokens / seconds,
            "padding_fraction": 1 - self.real / max(1, self.slots),
            "data_wait_fraction": self.wait / seconds,
            "peak_memory_bytes": peak_memory(),
        }
        self.clear()
        return figures


def peak_memory() -> int:
    """Most bytes that were used: of the device, or of this process on a CPU."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def plan_of(recipe: Recipe, corpus: Any, resolved: dict[str, Any], epoch: int) -> batching.Epoch:
    """The batches of an epoch."""
    return batching.Epoch(
        corpus.source_lengths, corpus.target_lengths, recipe.batching, resolved["micro_tokens"],
        recipe.training.seed, epoch, tuple(map(tuple, resolved.get("shapes", ()))),
    )  # fmt: skip


# ------------------------------------------------------------------------------- starting


def set_aside(run: Path) -> None:
    """Rename a run to NAME.old-1, NAME.old-2 ..., if nobody trains in it."""
    with files.lock(run / ".lock"):
        number = 1
        while (aside := run.with_name(f"{run.name}.old-{number}")).exists():
            number += 1
        files.move(run, aside)


def start(
    recipe: Recipe, run: Path, stop: StopRequest, report: Reporter, world: World
) -> tuple[Session, TrainState]:
    """Everything made and, when the run has a checkpoint, put back to where it was."""
    last = distributed.of_first(world, lambda: opened(recipe, run, report))
    device = distributed.pick_device(recipe.runtime.device, world)
    threads = distributed.use_threads(recipe.runtime.threads, world)
    metrics(recipe.data.valid.direction.target, recipe.evaluation)  # a missing package: say so now
    prepared = distributed.after_first(world, "prepared", lambda: prepare(recipe, report.tell))
    if stop.number:
        raise Stopped(stop.number, "stopped while preparing; what was prepared is kept")
    torch.manual_seed(recipe.training.seed)
    model = plugin("models", recipe.model.kind).build(recipe.model, prepared.vocabulary).to(device)
    build = plugin("objectives", recipe.objective.kind).build
    objective = build(recipe.objective, model, prepared.vocabulary, None).to(device)
    step = TrainStep(model, objective, "fp32")
    resolved = distributed.of_first(
        world, lambda: resolve(recipe, run, step, prepared, device, threads, report, world)
    )
    distributed.use_threads(resolved["threads"])
    step.precision = resolved["precision"]
    if resolved["compile"]:
        for block in model.blocks():
            block.compile(dynamic=True)
    average = MovingAverage(step, recipe.training.ema) if recipe.training.ema else None
    shared, plain = share(step, average, recipe, prepared, device, world)
    build = plugin("optimizers", recipe.optimizer.kind).build
    optimizer = build(recipe.optimizer, list(step.named_parameters()))
    scaler = torch.amp.GradScaler(device.type, enabled=step.precision == "fp16")
    session = Session(
        recipe, run, world, prepared, step, shared, plain, optimizer, average, scaler, device,
        resolved, report, stop, last_step_of(recipe, prepared, resolved),
    )  # fmt: skip
    if last is None:
        if world.first:
            checkpoint.begin(run, recipe, prepared.vocabulary, resolved)
            files.write_json(run / "report.json", prepared.report)
        parameters = sum(p.numel() for p in model.parameters())
        report.tell(f"{parameters:,} parameters on {device}, {resolved}")
        return session, TrainState()
    if world.first:
        checkpoint.write_recipe(run, recipe)
    return session, resume(session, run / "checkpoints" / last)


def opened(recipe: Recipe, run: Path, report: Reporter) -> str | None:
    """The name of the checkpoint to go on from in a run directory, which is made if need be."""
    if (run / "config.yaml").exists():
        check_same(run, recipe)
    files.make_folder(run / "checkpoints")
    files.sweep(run / "checkpoints")
    last = checkpoint.latest(run, report.tell)
    return None if last is None else last.name


def share(
    step: TrainStep, average: MovingAverage | None, recipe: Recipe, prepared: Prepared,
    device: torch.device, world: World,
) -> tuple[nn.Module, TrainStep | None]:  # fmt: skip
    """What the gradient is taken through and, when sharded, a whole copy to translate with."""
    digests = [prepared.train.digest, prepared.valid.digest, prepared.vocabulary.digest]
    if digests != distributed.of_first(world, lambda: digests):
        what = f"prepared other data than rank 0 ({digests})"
        advice = "give all machines the same files, or one folder for all as $MT_CACHE"
        raise DataError("RANK-DATA", f"rank {world.rank}", what, advice)
    if world.size == 1:
        return step, None
    if recipe.runtime.sharding == "fsdp":
        plain = copy.deepcopy(step).eval().requires_grad_(False)
        for one in (step, cast(TrainStep, average.module)) if average else (step,):
            distributed.shard(one, cast(Seq2Seq, one.model).blocks(), device, world)
        return step, plain
    shared = distributed.replicated(step, world)
    # The first gradient decides in which order they are sent from then on: let it be a zero
    # one, so that a resumed run sends, and sums, from its first step as one that never stopped.
    nothing = batching.moved(batching.collate(prepared.train, np.array([], np.int64)), device)
    no_scaler = torch.amp.GradScaler(device.type, enabled=False)
    backward(shared, cast(Objective, step.objective), [nothing], no_scaler, world)
    step.zero_grad()
    return shared, None


def resume(session: Session, folder: Path) -> TrainState:
    """Put the session back to a checkpoint."""
    manifest = distributed.of_first(
        session.world, lambda: files.read_json(folder / checkpoint.MANIFEST)
    )
    for key, now in session.about.items():
        if manifest.get(key) != now:
            what = f"the {key} changed since {folder.name} ({manifest.get(key)} -> {now})"
            advice = "restore the data and their files, or start over with --fresh"
            raise DataError("RESUME-DATA", session.run, what, advice)
    averaged = session.average.module if session.average else None
    state = checkpoint.restore(folder, session.step, averaged, session.optimizer, session.world)
    if state.scaler:
        session.scaler.load_state_dict(state.scaler)
    if state.best_step is not None and session.world.first:
        best = session.run / "checkpoints" / checkpoint.name_of(state.best_step)
        if best.is_dir() and not (session.run / "best").exists():
            checkpoint.mark_best(session.run, best)
    session.report.tell(f"resuming {session.run} after step {state.step}")
    return state


def check_same(run: Path, recipe: Recipe) -> None:
    """A resumed run has the recipe that it began with, but for what cannot change its weights.

    Raises:
        ConfigError: names each key that differs, old and new.
    """
    before = checkpoint.read_recipe(run)
    fixed = ("training.max_steps", "training.max_epochs") if recipe.schedule.falls_to_zero else ()
    differing = [
        (f"{run / 'config.yaml'}", f"{key}: {old!r} -> {new!r}")
        for key, old, new in checkpoint.changed_keys(dump(before), dump(recipe))
        if not key.startswith(CHANGEABLE) or key in fixed
    ]
    if differing:
        (where, what), *others = differing
        advice = "undo the change, train into another folder with --run, or start over with --fresh"
        raise ConfigError("RESUME-CONFIG", where, what, advice, others)


def last_step_of(recipe: Recipe, prepared: Prepared, resolved: dict[str, Any]) -> int | None:
    """The step at which the run ends, when that is known beforehand."""
    plan = recipe.training
    limits = [] if plan.max_steps is None else [plan.max_steps]
    if plan.max_epochs is not None:
        # Epochs of several windows differ by an update or two; the first one stands for all.
        limits.append(plan.max_epochs * len(plan_of(recipe, prepared.train, resolved, 0)))
    return min(limits, default=None)


def resolve(
    recipe: Recipe, run: Path, step: TrainStep, prepared: Prepared, device: torch.device,
    threads: int, report: Reporter, world: World,
) -> dict[str, Any]:  # fmt: skip
    """What `auto` means here; chosen once by trying and kept for every resume."""
    sharing = {
        "processes": world.size,
        "sharding": "none" if world.size == 1 else recipe.runtime.sharding.replace("none", "ddp"),
    }
    if (run / "resolved.json").exists():
        kept: dict[str, Any] = {"processes": 1, "sharding": "none"}
        kept |= files.read_json(run / "resolved.json")
        before = {key: kept[key] for key in sharing}
        if before == sharing:
            return kept
        changed = ", ".join(f"{key} {before[key]} -> {sharing[key]}" for key in sharing)
        report.tell(f"{changed}: the same data in the same order, other dropout and rounding")
        kept |= {"threads": threads, **sharing}
        files.write_json(run / "resolved.json", kept)
        return kept
    micro = pick_micro_tokens(recipe, device)
    compiled, precision = recipe.runtime.compile, recipe.runtime.precision
    if precision == "auto":
        precision = fastest_precision(recipe, step, prepared, device, micro)
    return {
        "device": device.type,
        "threads": threads,
        "micro_tokens": micro,
        "compile": device.type == "cuda" if compiled == "auto" else compiled,
        "precision": precision,
        **sharing,
        "torch": torch.__version__,
    }


def pick_micro_tokens(recipe: Recipe, device: torch.device) -> int:
    """Padded slots of a forward pass: what was asked, or small on a CPU, whose caches are."""
    asked = recipe.batching.micro_tokens
    if isinstance(asked, int):
        return asked
    largest = 4608 if device.type == "cpu" else 65536
    return max(2 * recipe.data.max_length, min(largest, round(2.25 * recipe.batching.tokens)))


def fastest_precision(
    recipe: Recipe, step: TrainStep, prepared: Prepared, device: torch.device, micro: int
) -> Precision:
    """bf16 where the hardware has it and, on a CPU, it is measured to win; else fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    if not distributed.cpu_has_bf16():
        return "fp32"
    rows = plan_of(recipe, prepared.train, {"micro_tokens": micro}, 0).updates(0)[0][0]
    batch = batching.collate(prepared.train, rows)
    no_scaler = torch.amp.GradScaler("cpu", enabled=False)
    seconds: dict[Precision, float] = {}
    tried: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in (*tried, *tried, *tried):
        step.precision = precision
        began = time.perf_counter()
        backward(step, cast(Objective, step.objective), [batch], no_scaler)
        took = time.perf_counter() - began
        seconds[precision] = min(took, seconds.get(precision, took))
    step.zero_grad()
    return "bf16" if seconds["bf16"] < 0.95 * seconds["fp32"] else "fp32"
