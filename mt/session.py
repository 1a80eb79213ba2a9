"""What a training works with: made from a recipe, resolved by trying, put back on a resume."""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from mt import batching, checkpoint, distributed, files
from mt.averaging import MovingAverage
from mt.checkpoint import TrainState
from mt.config import plugin
from mt.contracts import Batch, Objective
from mt.corpus import EncodedPairs
from mt.distributed import Precision
from mt.errors import ConfigError, DataError, Stopped
from mt.evaluate import metrics
from mt.prepare import Prepared, prepare
from mt.recipe import Recipe, dump
from mt.report import Reporter
from mt.step import TrainStep, backward
from mt.streaming import Processes, Stream

CHANGEABLE = (
    "training.max_", "training.report_every", "training.validate_every", "training.save_every",
    "training.keep_last", "training.patience", "training.samples", "training.validate_sentences",
    "data.processes", "data.test", "search.", "evaluation.", "runtime.",
)  # fmt: skip
"""Keys that a resumed run may change; all others would make it another run."""


class StopRequest:
    """Whether SIGINT or SIGTERM has come; a second one ends the program at once."""

    number = 0

    def handle(self, number: int, frame: object) -> None:
        """Remember the signal."""
        if self.number:
            raise Stopped(number, "stopped at once, by a second signal; the last save is intact")
        self.number = number


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Listen to SIGINT and SIGTERM while inside."""
    request = StopRequest()
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
    prepared: Prepared
    step: TrainStep
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None
    scaler: torch.amp.GradScaler
    device: torch.device
    resolved: dict[str, Any]
    report: Reporter
    stop: StopRequest
    last_step: int | None
    stream: Stream | None = None
    """Where updates come from when the training corpora are streamed."""
    meter: Meter = field(default_factory=lambda: Meter())

    @property
    def best(self) -> TrainStep:
        """Model and objective with the weights to translate with."""
        return cast(TrainStep, self.average.module) if self.average else self.step

    @property
    def pairs(self) -> EncodedPairs:
        """What holds the pairs of the update that is being made."""
        if self.stream is not None:
            return self.stream.window
        assert self.prepared.train is not None
        return self.prepared.train

    @property
    def about(self) -> dict[str, Any]:
        """What a checkpoint belongs to."""
        return {"data": self.prepared.digest, "vocabulary": self.prepared.vocabulary.digest}


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

    def read(self) -> dict[str, float]:
        """The figures; and begin anew."""
        seconds = max(time.perf_counter() - self.since, 1e-9)
        figures = {
            "loss": float(torch.stack(self.loss).mean()),
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


def plan_of(recipe: Recipe, corpus: Any, micro_tokens: int, epoch: int) -> batching.Plan:
    """The batches of an epoch."""
    source, target = corpus.source_lengths, corpus.target_lengths
    return batching.plan(source, target, recipe.batching, micro_tokens, recipe.training.seed, epoch)


# ------------------------------------------------------------------------------- starting


def set_aside(run: Path) -> None:
    """Rename a run to NAME.old-1, NAME.old-2 ..., if nobody trains in it."""
    with files.lock(run / ".lock"):
        number = 1
        while (aside := run.with_name(f"{run.name}.old-{number}")).exists():
            number += 1
        files.move(run, aside)


def start(
    recipe: Recipe, run: Path, stop: StopRequest, report: Reporter
) -> tuple[Session, TrainState]:
    """Everything made and, when the run has a checkpoint, put back to where it was."""
    if (run / "config.yaml").exists():
        check_same(run, recipe)
    files.make_folder(run / "checkpoints")
    files.sweep(run / "checkpoints")
    last = checkpoint.latest(run, report.tell)
    device = distributed.pick_device(recipe.runtime.device)
    threads = distributed.use_threads(recipe.runtime.threads)
    metrics(recipe.data.valid.direction.target, recipe.evaluation)  # a missing package: say so now
    prepared = prepare(recipe, report.tell)
    if stop.number:
        raise Stopped(stop.number, "stopped while preparing; what was prepared is kept")
    torch.manual_seed(recipe.training.seed)
    model = plugin("models", recipe.model.kind).build(recipe.model, prepared.vocabulary).to(device)
    build = plugin("objectives", recipe.objective.kind).build
    objective = build(recipe.objective, model, prepared.vocabulary, None).to(device)
    step = TrainStep(model, objective, "fp32")
    resolved = resolve(recipe, run, step, prepared, device, threads, report)
    step.precision = resolved["precision"]
    if resolved["compile"]:
        for block in model.blocks():
            block.compile(dynamic=True)
    build = plugin("optimizers", recipe.optimizer.kind).build
    optimizer = build(recipe.optimizer, list(step.named_parameters()))
    average = MovingAverage(step, recipe.training.ema) if recipe.training.ema else None
    scaler = torch.amp.GradScaler(device.type, enabled=step.precision == "fp16")
    stream = None
    if recipe.data.streaming:
        stream = Stream(
            recipe, prepared.vocabulary, prepared.held, resolved["micro_tokens"], Processes(),
            report.tell,
        )  # fmt: skip
    session = Session(
        recipe, run, prepared, step, optimizer, average, scaler, device, resolved, report, stop,
        last_step_of(recipe, prepared, resolved["micro_tokens"]), stream,
    )  # fmt: skip
    if last is None:
        checkpoint.begin(run, recipe, prepared.vocabulary, resolved)
        files.write_json(run / "report.json", prepared.report)
        parameters = sum(p.numel() for p in model.parameters())
        report.tell(f"{parameters:,} parameters on {device}, {resolved}")
        return session, TrainState()
    checkpoint.write_recipe(run, recipe)
    return session, resume(session, last)


def resume(session: Session, folder: Path) -> TrainState:
    """Put the session back to a checkpoint."""
    manifest = files.read_json(folder / checkpoint.MANIFEST)
    for key, now in session.about.items():
        if manifest.get(key) != now:
            what = f"the {key} changed since {folder.name} ({manifest.get(key)} -> {now})"
            advice = "restore the data and their files, or start over with --fresh"
            raise DataError("RESUME-DATA", session.run, what, advice)
    averaged = session.average.module if session.average else None
    state = checkpoint.restore(folder, session.step, averaged, session.optimizer)
    if session.stream is not None:
        state = session.stream.own(state)
    if state.scaler:
        session.scaler.load_state_dict(state.scaler)
    if state.best_step is not None:
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


def last_step_of(recipe: Recipe, prepared: Prepared, micro_tokens: int) -> int | None:
    """The step at which the run ends, when that is known beforehand."""
    plan = recipe.training
    limits = [] if plan.max_steps is None else [plan.max_steps]
    if plan.max_epochs is not None and not recipe.data.streaming:
        # Epochs differ by an update or two; the first one stands for all.
        first = plan_of(recipe, prepared.train, micro_tokens, 0)
        limits.append(plan.max_epochs * len(first.updates))
    return min(limits, default=None)


def resolve(
    recipe: Recipe, run: Path, step: TrainStep, prepared: Prepared, device: torch.device,
    threads: int, report: Reporter,
) -> dict[str, Any]:  # fmt: skip
    """What `auto` means here; chosen once by trying and kept for every resume."""
    if (run / "resolved.json").exists():
        kept: dict[str, Any] = files.read_json(run / "resolved.json")
        distributed.use_threads(kept["threads"])
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
    pairs = prepared.train or prepared.valid
    batch = batching.collate(pairs, plan_of(recipe, pairs, micro, 0).updates[0][0])
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
