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

from mt.checkpoints import checkpoint
from mt.checkpoints.averaging import MovingAverage
from mt.checkpoints.checkpoint import TrainState
from mt.config.recipe import Recipe, dump
from mt.config.yaml_reader import plugin
from mt.data import batch_sampler
from mt.data.bucketing import Lengths, Rows, Shape, choose_shapes
from mt.data.corpus import EncodedPairs
from mt.data.gpu_corpus import Resident, fits
from mt.data.prepare import Prepared, changed_files, prepare
from mt.data.streaming import Processes, Stream
from mt.data.subword_regularization import Epochs, Redraw
from mt.errors import ConfigError, DataError, Stopped
from mt.evaluation.evaluate import metrics
from mt.interfaces import Batch, Objective, Seq2Seq
from mt.models.modules.head_gates import gated
from mt.runtime import distributed, files, memory
from mt.runtime.distributed import Precision, World
from mt.training import finetuning
from mt.training.autotune import pick_micro_tokens
from mt.training.determinism_trace import Trace
from mt.training.graphed_step import Graphs, compilations
from mt.training.reporter import Reporter
from mt.training.schedule import layer_factors
from mt.training.step import Accumulate, TrainStep, accumulate, backward, scale_rates
from mt.training.teacher import open_teacher

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
    graphs: Graphs | None
    """What replays whole micro-batches on a CUDA device."""
    resident: Resident | None
    """The training corpus on the device, when it fits there."""
    stream: Stream | None
    """Where updates come from when the training corpora are streamed."""
    epochs: Epochs | None = None
    """The training pairs as each epoch sees them, when their words are cut anew in each."""
    taught_by: str | None = None
    """The hash of the teacher, where the objective has one."""
    drawn: EncodedPairs | None = None
    """Those of the epoch that is being trained on."""
    began: float = 0.0
    """The time, on the monotonic clock, when training would have begun without interruption."""
    meter: Meter = field(default_factory=lambda: Meter())
    unread: list[tuple[int, Rows, Tensor]] = field(default_factory=list)
    """Updates of which the host does not know yet whether they were skipped: step, rows, flag."""
    tracing: bool = False
    """Whether a trace is written: by the first process, but all must tell it of their losses."""
    trace: Trace | None = None

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
    def read_every(self) -> int:
        """After how many updates to ask what was skipped; on a CPU nobody waits for the answer."""
        return 1 if self.device.type == "cpu" else 10

    @property
    def graphed(self) -> tuple[Accumulate, bool]:
        """How a micro-batch is run, and whether gradients must stay where they are."""
        return (accumulate, False) if self.graphs is None else (self.graphs, True)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes that batches may have; none: any."""
        return shapes_of(self.resolved)

    @property
    def pairs(self) -> EncodedPairs:
        """What holds the pairs of the update that is being made."""
        if self.stream is not None:
            return self.stream.window
        assert self.prepared.train is not None
        return self.prepared.train if self.drawn is None else self.drawn

    def take(self, epoch: int) -> EncodedPairs:
        """The training pairs as an epoch sees them, from which batches are loaded from now on."""
        if self.epochs is not None:
            self.drawn = self.epochs.taken(epoch)
            if self.resident is not None:
                self.resident = Resident(self.drawn, self.device)
        return self.pairs

    @property
    def sides(self) -> tuple[Lengths, Lengths]:
        """[pairs] real positions of each side of `pairs`."""
        return self.pairs.source_lengths, self.pairs.target_lengths

    def load(self, rows: Rows) -> Batch:
        """The training pairs at `rows` as a batch on the device."""
        if self.resident is not None and len(rows):
            return self.resident.collate(rows, self.shapes)
        return batch_sampler.moved(
            batch_sampler.collate(self.pairs, rows, self.shapes), self.device
        )

    @property
    def about(self) -> dict[str, Any]:
        """What a checkpoint belongs to."""
        known, prepared = self.prepared.vocabulary, self.prepared
        told = {"data": prepared.digest, "valid": prepared.valid.digest, "vocabulary": known.digest}
        return told if self.taught_by is None else told | {"teacher": self.taught_by}


class Meter:
    """Figures since the last report."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.loss: list[Tensor] = []
        self.norm = torch.zeros(())
        self.tokens, self.slots, self.real, self.splits, self.wait = 0, 0, 0, 0, 0.0
        self.since = time.perf_counter()

    def add(
        self, loss: Tensor, norm: Tensor, tokens: int, real: int, batches: list[Batch], wait: float
    ) -> None:
        """Count one update, of `tokens` real target and `real` source and target positions."""
        self.loss.append(loss)
        self.norm, self.tokens, self.wait = norm, self.tokens + tokens, self.wait + wait
        self.real += real
        self.slots += sum(batch.source.numel() + batch.labels.numel() for batch in batches)

    def read(self, world: World) -> dict[str, float]:
        """The figures; and begin anew.

        Of several processes, padding, waiting and memory are those of the first.
        """
        loss = float(distributed.total(world, torch.stack(self.loss).mean()))  # work is done now
        seconds = max(time.perf_counter() - self.since, 1e-9)
        figures = {
            "loss": loss,
            "grad_norm": float(self.norm),
            "target_tokens": self.tokens,
            "target_tokens_per_second": self.tokens / seconds,
            "padding_fraction": 1 - self.real / max(1, self.slots),
            "data_wait_fraction": self.wait / seconds,
            "memory_splits": self.splits,
            "compilations": compilations(),
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


def shapes_of(resolved: dict[str, Any]) -> tuple[Shape, ...]:
    """The shapes that were chosen, smallest first."""
    return tuple((rows, source, target) for rows, source, target in resolved["shapes"])


def plan_of(
    recipe: Recipe, corpus: Any, resolved: dict[str, Any], epoch: int, parts: tuple[int, ...] = ()
) -> batch_sampler.Epoch:
    """The batches of an epoch; `parts` are the pairs of each training corpus."""
    return batch_sampler.Epoch(
        corpus.source_lengths, corpus.target_lengths, recipe.batching, resolved["micro_tokens"],
        recipe.training.seed, epoch, shapes_of(resolved), parts, recipe.data.temperature,
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
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 where a product is taken in fp32
    else:
        memory.keep_freed()
    threads = distributed.use_threads(recipe.runtime.threads, world)
    for valid in (recipe.data.valid, *recipe.data.more_valid):
        metrics(valid.direction.target, recipe.evaluation)  # a missing package: say so now
    prepared = distributed.after_first(world, "prepared", lambda: prepare(recipe, report.tell, run))
    if stop.number:
        raise Stopped(stop.number, "stopped while preparing; what was prepared is kept")
    teacher = open_teacher(recipe, prepared.vocabulary, device)  # before anything is drawn
    torch.manual_seed(recipe.training.seed)
    model = plugin("models", recipe.model.kind).build(recipe.model, prepared.vocabulary).to(device)
    told = begin(recipe, model, last, report, world)
    build = plugin("objectives", recipe.objective.kind).build
    objective = build(recipe.objective, model, prepared.vocabulary, teacher).to(device)
    objective = gated(objective, model, recipe.model)
    step = TrainStep(model, objective, "fp32")
    redraw = redraw_of(recipe, prepared)
    epochs = None
    if redraw is not None and prepared.train is not None:
        epochs = Epochs(redraw, prepared.train, recipe.training.seed)
    train = prepared.train if epochs is None else epochs(0)
    resolved = distributed.of_first(
        world,
        lambda: resolve(recipe, run, step, prepared, train, device, threads, report, world),
    )
    resolved |= told
    distributed.use_threads(resolved["threads"])
    step.precision = resolved["precision"]
    if resolved["compile"]:
        for block in model.blocks():
            block.compile(dynamic=True)
    average = MovingAverage(step, recipe.training.ema) if recipe.training.ema else None
    shared, plain = share(step, average, recipe, prepared, device, world)
    build = plugin("optimizers", recipe.optimizer.kind).build
    training = {name: p for name, p in step.named_parameters() if p.requires_grad}
    optimizer = build(recipe.optimizer, list(training.items()))
    if recipe.optimizer.layer_decay < 1:
        factors = layer_factors(training, recipe.optimizer.layer_decay)
        scale_rates(optimizer, training, factors)
    scaler = torch.amp.GradScaler(device.type, enabled=step.precision == "fp16")
    alone = device.type == "cuda" and world.size == 1
    # A graph cannot hold a pass that makes the host wait, as one that chooses heads does.
    graphed = alone and recipe.runtime.graphs and not getattr(model, "waits", False)
    graphs = Graphs(step, report.tell) if graphed else None
    resident, stream = None, None
    if train is None:
        stream = Stream(
            recipe, prepared.vocabulary, prepared.held, resolved["micro_tokens"],
            processes_of(world), report.tell, redraw,
        )  # fmt: skip
    elif fits(train, device):
        resident = Resident(train, device)
    session = Session(
        recipe, run, world, prepared, step, shared, plain, optimizer, average, scaler, device,
        resolved, report, stop, last_step_of(recipe, train, resolved, prepared.parts), graphs,
        resident, stream, epochs, None if teacher is None else teacher.digest,
    )  # fmt: skip
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # what was tried until now does not count
    if last is None:
        weights = list(model.parameters())
        if world.first:
            # The model, what trains, and two moments of it; a new one stands beside the last.
            files.need_room(run, 2 * sum(4 * p.numel() * p.element_size() for p in weights))
            checkpoint.begin(run, recipe, prepared.vocabulary, resolved)
            files.write_json(run / "report.json", prepared.report)
        parameters = sum(p.numel() for p in weights)
        report.tell(f"{parameters:,} parameters on {device}, {resolved}")
        return session, TrainState()
    state = resume(session, run / "checkpoints" / last)
    if world.first:
        files.write_json(run / "resolved.json", resolved)
        checkpoint.write_recipe(run, recipe)
    return session, state


def begin(
    recipe: Recipe, model: nn.Module, last: str | None, report: Reporter, world: World
) -> dict[str, Any]:
    """Give a new run's model the weights it begins with, and freeze; what `resolved.json` tells.

    A run that has a checkpoint does not need the other model any more.
    """
    plan, told = recipe.training, dict[str, Any]()
    if plan.initialise_from is not None and last is None:
        about: list[dict[str, Any]] = [{}]

        def read() -> dict[str, Tensor]:
            found, about[0] = finetuning.weights(recipe)
            return found

        found = distributed.tensors_of_first(world, read)
        told = {"initialised": distributed.of_first(world, lambda: about[0])}
        finetuning.initialise(model, found, recipe)
        report.tell(f"begins with the weights of {plan.initialise_from}")
    if plan.freeze:
        frozen = finetuning.freeze(model, plan.freeze)
        report.tell(f"{frozen:,} weights are left as they are (training.freeze)")
    return told


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
    digests = [prepared.digest, prepared.valid.digest, prepared.vocabulary.digest]
    if digests != distributed.of_first(world, lambda: digests):
        what = f"prepared other data than rank 0 ({digests})"
        advice = "give all machines the same files, or one folder for all as $MT_CACHE"
        raise DataError("RANK-DATA", f"rank {world.rank}", what, advice)
    if world.size == 1:
        return step, None
    if recipe.runtime.sharding == "fsdp":
        if recipe.optimizer.kind == "muon":
            what = "muon needs whole matrices, and fsdp leaves each process a part of them"
            advice = "set runtime.sharding=ddp, or optimizer.kind=adamw"
            raise ConfigError("CONFIG", "optimizer.kind", what, advice)
        plain = copy.deepcopy(step).eval().requires_grad_(False)
        for one in (step, cast(TrainStep, average.module)) if average else (step,):
            distributed.shard(one, cast(Seq2Seq, one.model).blocks(), device, world)
        return step, plain
    shared = distributed.replicated(step, world)
    # The first gradient decides in which order they are sent from then on: let it be a zero
    # one, so that a resumed run sends, and sums, from its first step as one that never stopped.
    nothing = batch_sampler.moved(
        batch_sampler.collate(prepared.valid, np.array([], np.int64)), device
    )
    no_scaler = torch.amp.GradScaler(device.type, enabled=False)
    backward(shared, cast(Objective, step.objective), [nothing], no_scaler, world)
    step.zero_grad()
    return shared, None


def processes_of(world: World) -> Processes:
    """The same processes as a stream speaks to them."""
    return Processes(
        world.rank, world.size,
        agree=lambda flag: not distributed.most(world, not flag)[0],
        gather=lambda own: distributed.gathered(world, own),
    )  # fmt: skip


def resume(session: Session, folder: Path) -> TrainState:
    """Put the session back to a checkpoint."""
    if session.world.first:
        check_data(session, folder)
    averaged = session.average.module if session.average else None
    state = checkpoint.restore(folder, session.step, averaged, session.optimizer, session.world)
    if session.stream is not None:
        state = session.stream.own(state)
    if state.scaler:
        session.scaler.load_state_dict(state.scaler)
    if state.best_step is not None and session.world.first:
        best = session.run / "checkpoints" / checkpoint.name_of(state.best_step)
        if best.is_dir() and (session.run / "best").resolve() != best.resolve():
            checkpoint.mark_best(session.run, best)  # a crash came between the two
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


def check_data(session: Session, folder: Path) -> None:
    """A resumed run has the data and the vocabulary of its checkpoint.

    Raises:
        DataError: names each file that changed or, when none did, what the data are read from.
    """
    manifest = files.read_json(folder / checkpoint.MANIFEST)
    about = session.about
    changed = [key for key in about if manifest.get(key, about[key]) != about[key]]
    if not changed:
        return
    try:
        before = files.read_json(session.run / "report.json")
    except (OSError, ValueError):
        before = {}
    since, vocabulary = f"changed since {folder.name}", session.recipe.vocabulary.path
    found = changed_files(before, session.prepared.report)
    problems = [(path, f"{since}: {hashes}") for path, hashes in found]
    if not problems and vocabulary and "vocabulary" in changed:
        problems = [(vocabulary, f"{since}: {manifest['vocabulary']} -> {about['vocabulary']}")]
    if not problems:
        what = f"the {' and '.join(changed)} {since}; read from {read_from(session.recipe)}"
        problems = [(str(session.run), what)]
    (where, what), *others = problems
    advice = "restore the data and their files, or start over with --fresh"
    raise DataError("RESUME-DATA", where, what, advice, others)


def read_from(recipe: Recipe) -> str:
    """The corpora as the recipe says them: `data.train.0 (kind=huggingface, dataset=...)`."""
    named = {f"data.train.{number}": source for number, source in enumerate(recipe.data.train)}
    named["data.valid"], told = recipe.data.valid, list[str]()
    named |= {f"data.more_valid.{i}": each for i, each in enumerate(recipe.data.more_valid)}
    for key, source in named.items():
        said = source.model_dump(include=source.model_fields_set - {"languages"})
        told.append(f"{key} ({', '.join(f'{name}={value}' for name, value in said.items())})")
    return ", ".join(told)


def redraw_of(recipe: Recipe, prepared: Prepared) -> Redraw | None:
    """What cuts words anew for each epoch, if the recipe asks for it."""
    sampling = recipe.vocabulary.sampling
    if not sampling.kinds:
        return None
    return Redraw(sampling, prepared.vocabulary, recipe.data.max_length)


def last_step_of(
    recipe: Recipe, train: EncodedPairs | None, resolved: dict[str, Any], parts: tuple[int, ...]
) -> int | None:
    """The step at which the run ends, when that is known beforehand."""
    plan = recipe.training
    limits = [] if plan.max_steps is None else [plan.max_steps]
    if plan.max_epochs is not None and train is not None:
        # Epochs of several windows differ by an update or two; the first one stands for all.
        first = plan_of(recipe, train, resolved, 0, parts)
        limits.append(plan.max_epochs * len(first))
    return min(limits, default=None)


def resolve(
    recipe: Recipe, run: Path, step: TrainStep, prepared: Prepared, train: EncodedPairs | None,
    device: torch.device, threads: int, report: Reporter, world: World,
) -> dict[str, Any]:  # fmt: skip
    """What `auto` means here; chosen once by trying and kept for every resume."""
    sharing = {
        "processes": world.size,
        "sharding": "none" if world.size == 1 else recipe.runtime.sharding.replace("none", "ddp"),
    }
    if (run / "resolved.json").exists():
        kept: dict[str, Any] = {"processes": 1, "sharding": "none", "shapes": []}
        kept |= files.read_json(run / "resolved.json")
        if kept.get("torch", torch.__version__) != torch.__version__:
            what = f"the run began with torch {kept['torch']}, this is {torch.__version__}"
            report.tell(f"mt: warning[TORCH] {what}: the last bits of its weights may differ")
        before = {key: kept[key] for key in sharing}
        if before == sharing:
            return kept
        changed = ", ".join(f"{key} {before[key]} -> {sharing[key]}" for key in sharing)
        report.tell(f"{changed}: the same data in the same order, other dropout and rounding")
        return kept | {"threads": threads, **sharing}
    compiled, precision = recipe.runtime.compile, recipe.runtime.precision
    if device.type == "cuda":  # what fits there depends on it
        step.precision = device_precision() if precision == "auto" else precision
        precision = step.precision
    pairs = prepared.valid if train is None else train
    micro = pick_micro_tokens(recipe, step, pairs, prepared.vocabulary.digest, device)
    if precision == "auto":
        precision = fastest_precision(recipe, step, pairs, micro)
    return {
        "device": device.type,
        "threads": threads,
        "micro_tokens": micro,
        "shapes": pick_shapes(train, longest_of(recipe, prepared), micro, device),
        "compile": device.type == "cuda" if compiled == "auto" else compiled,
        "precision": precision,
        **sharing,
        "torch": torch.__version__,
    }


def longest_of(recipe: Recipe, prepared: Prepared) -> tuple[int, int]:
    """The most positions of each side that a pair of a prepared corpus may have in any epoch."""
    redraw = redraw_of(recipe, prepared)
    if redraw is None or prepared.train is None:
        return 1, 1
    return redraw.longest(prepared.train)


def pick_shapes(
    corpus: EncodedPairs | None, longest: tuple[int, int], micro_tokens: int, device: torch.device
) -> list[Shape]:
    """A few shapes for a CUDA device, which starts up for each; any shape will do on a CPU.

    So it must where the corpus is streamed: nobody knows its longest pair.

    Args:
        longest: positions of the sides that must fit, besides those of the corpus.
    """
    if device.type != "cuda" or corpus is None:
        return []
    source = np.append(corpus.source_lengths, longest[0])
    return list(choose_shapes(source, np.append(corpus.target_lengths, longest[1]), micro_tokens))


def device_precision() -> Precision:
    """bf16 where the CUDA device has it, else fp32."""
    return "bf16" if torch.cuda.is_bf16_supported() else "fp32"


def fastest_precision(
    recipe: Recipe, step: TrainStep, pairs: EncodedPairs, micro: int
) -> Precision:
    """On a CPU: bf16 where the hardware has it and it is measured to win; else fp32."""
    if not distributed.cpu_has_bf16():
        return "fp32"
    epoch = plan_of(recipe, pairs, {"micro_tokens": micro, "shapes": []}, 0)
    batch = batch_sampler.collate(pairs, epoch.updates(0)[0][0])
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
