"""Build everything that a training run needs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from mt.checkpoints import run_directory
from mt.checkpoints.train_state import TrainState
from mt.config.plugins import plugin
from mt.config.recipe import Recipe
from mt.data import collate
from mt.data.cache import PreparedData
from mt.data.corpus import EncodedPairs
from mt.data.gpu_corpus import GpuCorpus, fits_on_device
from mt.data.prepare import prepare
from mt.data.streaming import Stream, StreamRanks
from mt.data.subword_regularization import EpochCorpora, SubwordRegularizer
from mt.errors import ConfigError, DataError, Stopped
from mt.evaluation.metrics import make_metrics
from mt.interfaces import Objective, Seq2Seq
from mt.models.modules.head_gates import gated
from mt.runtime import distributed, files, memory
from mt.runtime.device import pick_device, use_threads
from mt.runtime.distributed import World
from mt.runtime.signals import StopRequest
from mt.training import finetuning
from mt.training.autotune import autotune
from mt.training.ema import MovingAverage
from mt.training.graphed_step import GraphedStep
from mt.training.reporter import Reporter
from mt.training.resume import check_recipe, resume_run
from mt.training.schedule import layer_rate_factors
from mt.training.session import TrainingRun, plan_epoch
from mt.training.step import ModelWithLoss, accumulate_gradients, set_rate_factors
from mt.training.teacher import open_teacher


def archive_run(run: Path) -> None:
    """Rename a run to NAME.old-1, NAME.old-2 ..., if nobody trains in it."""
    with files.lock(run / ".lock"):
        number = 1
        while (aside := run.with_name(f"{run.name}.old-{number}")).exists():
            number += 1
        files.rename_path(run, aside)


def build_run(
    recipe: Recipe, run: Path, stop: StopRequest, report: Reporter, world: World
) -> tuple[TrainingRun, TrainState]:
    """Everything made and, when the run has a checkpoint, put back to where it was."""
    last = distributed.from_main(world, lambda: open_run_folder(recipe, run, report))
    device = pick_device(recipe.runtime.device, world)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 where a product is taken in fp32
    else:
        memory.keep_freed_memory()
    threads = use_threads(recipe.runtime.threads, world)
    for valid in (recipe.data.valid, *recipe.data.more_valid):
        make_metrics(valid.direction.target, recipe.evaluation)  # a missing package: say so now
    prepared = distributed.main_first(
        world,
        "prepared",
        lambda: prepare(recipe, report.tell, finetuning.inherited_vocabulary(recipe, run)),
    )
    if stop.number:
        raise Stopped(stop.number, "stopped while preparing; what was prepared is kept")
    teacher = open_teacher(recipe, prepared.vocabulary, device)  # before anything is drawn
    torch.manual_seed(recipe.training.seed)
    model = plugin("models", recipe.model.kind).build(recipe.model, prepared.vocabulary).to(device)
    told = load_initial_weights(recipe, model, last, report, world)
    build = plugin("objectives", recipe.objective.kind).build
    objective = build(recipe.objective, model, prepared.vocabulary, teacher).to(device)
    objective = gated(objective, model, recipe.model)
    step = ModelWithLoss(model, objective, "fp32")
    redraw = subword_regularizer(recipe, prepared)
    epochs = None
    if redraw is not None and prepared.train is not None:
        epochs = EpochCorpora(redraw, prepared.train, recipe.training.seed)
    train = prepared.train if epochs is None else epochs(0)
    resolved = distributed.from_main(
        world,
        lambda: autotune(recipe, run, step, prepared, train, device, threads, report, world),
    )
    resolved |= told
    use_threads(resolved["threads"])
    step.precision = resolved["precision"]
    if resolved["compile"]:
        for block in model.blocks():
            block.compile(dynamic=True)
    average = MovingAverage(step, recipe.training.ema) if recipe.training.ema else None
    shared, plain = wrap_module(step, average, recipe, prepared, device, world)
    build = plugin("optimizers", recipe.optimizer.kind).build
    training = {name: p for name, p in step.named_parameters() if p.requires_grad}
    optimizer = build(recipe.optimizer, list(training.items()))
    if recipe.optimizer.layer_decay < 1:
        factors = layer_rate_factors(training, recipe.optimizer.layer_decay)
        set_rate_factors(optimizer, training, factors)
    scaler = torch.amp.GradScaler(device.type, enabled=step.precision == "fp16")
    alone = device.type == "cuda" and world.size == 1
    # A graph cannot hold a pass that makes the host wait, as one that chooses heads does.
    graphed = alone and recipe.runtime.graphs and not getattr(model, "waits", False)
    graphs = GraphedStep(step, report.tell) if graphed else None
    resident, stream = None, None
    if train is None:
        stream = Stream(
            recipe, prepared.vocabulary, prepared.held, resolved["micro_tokens"],
            stream_ranks(world), report.tell, redraw,
        )  # fmt: skip
    elif fits_on_device(train, device):
        resident = GpuCorpus(train, device)
    session = TrainingRun(
        recipe, run, world, prepared, step, shared, plain, optimizer, average, scaler, device,
        resolved, report, stop, find_last_step(recipe, train, resolved, prepared.parts), graphs,
        resident, stream, epochs, None if teacher is None else teacher.digest,
    )  # fmt: skip
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # what was tried until now does not count
    if last is None:
        weights = list(model.parameters())
        if world.first:
            # The model, what trains, and two moments of it; a new one stands beside the last.
            files.check_free_space(run, 2 * sum(4 * p.numel() * p.element_size() for p in weights))
            run_directory.create_run(run, recipe, prepared.vocabulary, resolved)
            files.write_json(run / "report.json", prepared.report)
        parameters = sum(p.numel() for p in weights)
        report.tell(f"{parameters:,} parameters on {device}, {resolved}")
        return session, TrainState()
    state = resume_run(session, run / "checkpoints" / last)
    if world.first:
        files.write_json(run / "resolved.json", resolved)
        run_directory.write_recipe(run, recipe)
    return session, state


def load_initial_weights(
    recipe: Recipe, model: nn.Module, last: str | None, report: Reporter, world: World
) -> dict[str, Any]:
    """Give a new run's model the weights it begins with, and freeze; what `resolved.json` tells.

    A run that has a checkpoint does not need the other model any more.
    """
    plan, told = recipe.training, dict[str, Any]()
    if plan.initialise_from is not None and last is None:
        about: list[dict[str, Any]] = [{}]

        def read() -> dict[str, Tensor]:
            found, about[0] = finetuning.read_initial_weights(recipe)
            return found

        found = distributed.tensors_from_main(world, read)
        told = {"initialised": distributed.from_main(world, lambda: about[0])}
        finetuning.initialize_from(model, found, recipe)
        report.tell(f"begins with the weights of {plan.initialise_from}")
    if plan.freeze:
        frozen = finetuning.freeze_parameters(model, plan.freeze)
        report.tell(f"{frozen:,} weights are left as they are (training.freeze)")
    return told


def open_run_folder(recipe: Recipe, run: Path, report: Reporter) -> str | None:
    """The name of the checkpoint to go on from in a run directory, which is made if need be."""
    if (run / "config.yaml").exists():
        check_recipe(run, recipe)
    files.make_folder(run / "checkpoints")
    files.delete_leftovers(run / "checkpoints")
    last = run_directory.latest_sound_checkpoint(run, report.tell)
    return None if last is None else last.name


def wrap_module(
    step: ModelWithLoss, average: MovingAverage | None, recipe: Recipe, prepared: PreparedData,
    device: torch.device, world: World,
) -> tuple[nn.Module, ModelWithLoss | None]:  # fmt: skip
    """What the gradient is taken through and, when sharded, a whole copy to translate with."""
    digests = [prepared.digest, prepared.valid.digest, prepared.vocabulary.digest]
    if digests != distributed.from_main(world, lambda: digests):
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
        for one in (step, cast(ModelWithLoss, average.module)) if average else (step,):
            distributed.wrap_fsdp(one, cast(Seq2Seq, one.model).blocks(), device, world)
        return step, plain
    shared = distributed.wrap_ddp(step, world)
    # The first gradient decides in which order they are sent from then on: let it be a zero
    # one, so that a resumed run sends, and sums, from its first step as one that never stopped.
    nothing = collate.to_device(
        collate.collate_pairs(prepared.valid, np.array([], np.int64)), device
    )
    no_scaler = torch.amp.GradScaler(device.type, enabled=False)
    accumulate_gradients(shared, cast(Objective, step.objective), [nothing], no_scaler, world)
    step.zero_grad()
    return shared, None


def stream_ranks(world: World) -> StreamRanks:
    """The same processes as a stream speaks to them."""
    return StreamRanks(
        world.rank, world.size,
        agree=lambda flag: not distributed.all_reduce_max(world, not flag)[0],
        gather=lambda own: distributed.all_gather_json(world, own),
    )  # fmt: skip


def subword_regularizer(recipe: Recipe, prepared: PreparedData) -> SubwordRegularizer | None:
    """What cuts words anew for each epoch, if the recipe asks for it."""
    sampling = recipe.vocabulary.sampling
    if not sampling.kinds:
        return None
    return SubwordRegularizer(sampling, prepared.vocabulary, recipe.data.max_length)


def find_last_step(
    recipe: Recipe, train: EncodedPairs | None, resolved: dict[str, Any], parts: tuple[int, ...]
) -> int | None:
    """The step at which the run ends, when that is known beforehand."""
    plan = recipe.training
    limits = [] if plan.max_steps is None else [plan.max_steps]
    if plan.max_epochs is not None and train is not None:
        # Epochs of several windows differ by an update or two; the first one stands for all.
        first = plan_epoch(recipe, train, resolved, 0, parts)
        limits.append(plan.max_epochs * len(first))
    return min(limits, default=None)
