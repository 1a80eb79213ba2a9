"""Build a training run: device, data, model, objective, autotuning, wrapping, optimizer, resume."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from mt.checkpoints import run_directory
from mt.checkpoints.train_state import TrainState
from mt.config.plugins import plugin
from mt.config.recipe import Recipe
from mt.data.cache import PreparedData
from mt.data.prepare import prepare
from mt.data.training_data import open_training_data
from mt.errors import ConfigError, DataError, Stopped
from mt.evaluation.scoring import build_metric
from mt.interfaces import Seq2Seq, Teacher
from mt.runtime import distributed, files, memory
from mt.runtime.cuda_graphs import CudaGraphs
from mt.runtime.device import pick_device, use_threads
from mt.runtime.distributed import World
from mt.runtime.lock import lock
from mt.runtime.signals import StopRequest
from mt.training import finetuning
from mt.training.autotune import autotune
from mt.training.ema import MovingAverage
from mt.training.flat_gradients import FlatGradients
from mt.training.graphed_step import GraphedStep
from mt.training.guided_alignment import add_guided_alignment
from mt.training.head_gate_loss import add_head_gate_loss
from mt.training.reporter import Reporter
from mt.training.resume import check_recipe, resume_run
from mt.training.schedule import layer_rate_factors
from mt.training.session import TrainingRun
from mt.training.step import ModelWithLoss, set_rate_factors
from mt.training.teacher import open_teacher
from mt.training.time_left import TimeLeft
from mt.training.validation_engine import ValidationEngine
from mt.vocabulary.vocabulary import Vocabulary


def build_run(
    recipe: Recipe, folder: Path, stop: StopRequest, report: Reporter, world: World
) -> tuple[TrainingRun, TrainState]:
    """Build a run and, when its directory has a checkpoint, restore it."""
    last = distributed.from_main(world, lambda: open_run_folder(recipe, folder, report))
    device, threads = open_device(recipe, world)
    prepared = prepare_data(recipe, folder, stop, report, world)
    run = assemble_run(recipe, folder, last, prepared, device, threads, stop, report, world)
    return run, begin_run(run) if last is None else continue_run(run, last)


def assemble_run(
    recipe: Recipe, folder: Path, last: str | None, prepared: PreparedData, device: torch.device,
    threads: int, stop: StopRequest, report: Reporter, world: World,
) -> TrainingRun:  # fmt: skip
    """Build the objects of a run from its prepared data; `last` is the checkpoint to resume from.

    Nothing is written.
    """
    data = open_training_data(recipe, prepared, device, world, report.log)
    teacher = open_teacher(recipe, prepared.vocabulary, device)  # before torch is seeded
    module = build_module(recipe, prepared.vocabulary, teacher, device)
    module.objective = add_guided_alignment(
        module.objective, module.model, recipe, prepared, device, report.log
    )
    initialised = load_initial_weights(recipe, module.model, last, report, world)
    resolved = distributed.from_main(
        world, lambda: autotune(recipe, folder, module, data, device, threads, report, world)
    )
    resolved |= initialised
    apply_resolved(module, resolved)
    data.set_resolved(resolved)
    distributed.broadcast_weights(world, module)
    average = MovingAverage(module, recipe.training.ema) if recipe.training.ema else None
    unsharded_copy = shard_module(module, average, recipe, prepared, device, world)
    replicated = world.size > 1 and unsharded_copy is None
    last_step = data.last_step()
    run = TrainingRun(
        recipe=recipe, folder=folder, world=world, data=data, module=module,
        gradients=FlatGradients(module.parameters()) if replicated else None,
        unsharded_copy=unsharded_copy,
        optimizer=build_optimizer(recipe, module), average=average,
        scaler=torch.amp.GradScaler(device.type, enabled=module.precision == "fp16"),
        device=device, resolved=resolved, report=report, stop=stop,
        graphs=capture_graphs(recipe, module, device, report, unsharded_copy is not None),
        translator=ValidationEngine(
            prepared.vocabulary, recipe, device, resolved["precision"]
        ),
        teacher_digest=None if teacher is None else teacher.digest,
        last_step=last_step, time_left=TimeLeft(recipe.training, last_step),
    )  # fmt: skip
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # autotuning does not count
    return run


def archive_run(folder: Path) -> None:
    """Rename a run to NAME.old-1, NAME.old-2 ..., unless it is in training."""
    with lock(folder / ".lock"):
        number = 1
        while (old := folder.with_name(f"{folder.name}.old-{number}")).exists():
            number += 1
        files.rename_path(folder, old)


def open_run_folder(recipe: Recipe, folder: Path, report: Reporter) -> str | None:
    """Make the run directory; return the name of the checkpoint to resume from, or None."""
    if (folder / "config.yaml").exists():
        check_recipe(folder, recipe)
    files.make_folder(folder / "checkpoints")
    run_directory.restore_replaced(folder)
    files.delete_leftovers(folder / "checkpoints")
    last = run_directory.latest_sound_checkpoint(folder, report.log)
    return None if last is None else last.name


def open_device(recipe: Recipe, world: World) -> tuple[torch.device, int]:
    """Pick the device of this rank and the number of its CPU threads."""
    device = pick_device(recipe.runtime.device, world)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 for products in fp32
    else:
        memory.keep_freed_memory()
    return device, use_threads(recipe.runtime.threads, world)


def prepare_data(
    recipe: Recipe, folder: Path, stop: StopRequest, report: Reporter, world: World
) -> PreparedData:
    """Prepare the corpora on one rank of each machine; the other ranks read its cache."""
    for valid in (recipe.data.valid, *recipe.data.more_valid):
        for label in {"bleu", "chrf", recipe.training.monitor} - {"loss"}:  # fails early
            config = recipe.evaluation.metric(label)
            build_metric(config, valid.direction.target, recipe.evaluation)

    def action() -> PreparedData:
        return prepare(recipe, report.log, finetuning.inherited_vocabulary(recipe, folder))

    prepared = distributed.main_first(world, "prepared", action)
    if stop.number:
        raise Stopped(stop.number, "stopped while preparing; what was prepared is kept")
    return prepared


def build_module(
    recipe: Recipe, vocabulary: Vocabulary, teacher: Teacher | None, device: torch.device
) -> ModelWithLoss:
    """Build the model, its weights drawn from `training.seed`, with its objective."""
    torch.manual_seed(recipe.training.seed)
    model = plugin("models", recipe.model.kind).build(recipe.model, vocabulary).to(device)
    build = plugin("objectives", recipe.objective.kind).build
    objective = build(recipe.objective, model, vocabulary, teacher).to(device)
    return ModelWithLoss(model, add_head_gate_loss(objective, model, recipe.model), "fp32")


def load_initial_weights(
    recipe: Recipe, model: nn.Module, last: str | None, report: Reporter, world: World
) -> dict[str, Any]:
    """Initialise the weights of a new run, and freeze; return facts for `resolved.json`."""
    plan, origin = recipe.training, dict[str, Any]()
    if plan.initialise_from is not None and last is None:
        weights, facts = finetuning.read_initial_weights(recipe) if world.is_main else ({}, {})
        weights = distributed.tensors_from_main(world, lambda: weights)
        origin = {"initialised": distributed.from_main(world, lambda: facts)}
        finetuning.initialize_from(model, weights, recipe)
        report.log(f"begins with the weights of {plan.initialise_from}")
    if plan.freeze:
        frozen = finetuning.freeze_parameters(model, plan.freeze)
        report.log(f"{frozen:,} weights are left as they are (training.freeze)")
    return origin


def apply_resolved(module: ModelWithLoss, resolved: dict[str, Any]) -> None:
    """Apply the threads, the precision and the compilation that autotuning chose."""
    use_threads(resolved["threads"])
    module.precision = resolved["precision"]
    if resolved["compile"]:
        for block in cast(Seq2Seq, module.model).blocks():
            block.compile(dynamic=True)


def shard_module(
    module: ModelWithLoss, average: MovingAverage | None, recipe: Recipe, prepared: PreparedData,
    device: torch.device, world: World,
) -> ModelWithLoss | None:  # fmt: skip
    """Shard a module by FSDP2 if the recipe says so; return a whole copy to translate with.

    Raises:
        DataError: a rank prepared other data than rank 0.
        ConfigError: the optimizer cannot be sharded.
    """
    digests = [prepared.digest, prepared.valid.digest, prepared.vocabulary.digest]
    if digests != distributed.from_main(world, lambda: digests):
        what = f"prepared other data than rank 0 ({digests})"
        advice = "give all machines the same files, or one folder for all as $MT_CACHE"
        raise DataError("RANK-DATA", f"rank {world.rank}", what, advice)
    if world.size == 1 or recipe.runtime.sharding != "fsdp":
        return None
    if recipe.optimizer.kind == "muon":
        what = "muon needs whole matrices, and fsdp leaves each process a part of them"
        advice = "set runtime.sharding=ddp, or optimizer.kind=adamw"
        raise ConfigError("CONFIG", "optimizer.kind", what, advice)
    unsharded = copy.deepcopy(module).eval().requires_grad_(False)
    for one in (module, cast(ModelWithLoss, average.module)) if average else (module,):
        distributed.wrap_fsdp(one, cast(Seq2Seq, one.model).blocks(), device, world)
    return unsharded


def build_optimizer(recipe: Recipe, module: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer of all parameters that are not frozen."""
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    build = plugin("optimizers", recipe.optimizer.kind).build
    optimizer: torch.optim.Optimizer = build(recipe.optimizer, list(named.items()))
    if recipe.optimizer.layer_decay < 1:
        factors = layer_rate_factors(named, recipe.optimizer.layer_decay)
        set_rate_factors(optimizer, named, factors)
    return optimizer


def capture_graphs(
    recipe: Recipe, module: ModelWithLoss, device: torch.device, report: Reporter, sharded: bool
) -> GraphedStep | None:
    """Return a step of CUDA graphs, where a CUDA device has the whole of a model that allows them.

    FSDP communicates within a pass, and a mixture of heads synchronises: no graph captures that.
    """
    allowed = not sharded and not getattr(module.model, "syncs_device", False)
    if device.type == "cuda" and allowed and recipe.runtime.graphs:
        return GraphedStep(module, report.log, CudaGraphs(device))
    return None


def begin_run(run: TrainingRun) -> TrainState:
    """Write the files of a new run; return the state before its first update."""
    weights = list(run.module.model.parameters())
    if run.world.is_main:
        # A checkpoint has the model, the raw weights and two moments; two exist while saving.
        needed = 2 * sum(4 * p.numel() * p.element_size() for p in weights)
        files.check_free_space(run.folder, needed)
        prepared = run.data.prepared
        run_directory.create_run(run.folder, run.recipe, prepared.vocabulary, run.resolved)
        files.write_json(run.folder / "report.json", prepared.report)
    parameters = sum(p.numel() for p in weights)
    run.report.log(f"{parameters:,} parameters on {run.device}, {run.resolved}")
    return TrainState()


def continue_run(run: TrainingRun, last: str) -> TrainState:
    """Restore a run from its last checkpoint; return its state."""
    state = resume_run(run, run.folder / "checkpoints" / last)
    if run.world.is_main:
        files.write_json(run.folder / "resolved.json", run.resolved)
        run_directory.write_recipe(run.folder, run.recipe)
    return state
