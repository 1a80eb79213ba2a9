"""Prune a trained run into a smaller run, fine-tune it on request, and compare both.

The new run begins with a checkpoint of step 0 that has the pruned weights. So fine-tuning is
ordinary training from there, and every command that takes a run takes this one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mt.checkpoints import checkpoint, run_directory
from mt.checkpoints.run_directory import LoadedModel
from mt.checkpoints.train_state import TrainState
from mt.compression import head_importance
from mt.config.plugins import plugin
from mt.config.recipe import Recipe, dump, trust_overrides
from mt.config.validation import validate
from mt.config.yaml_reader import Document, override
from mt.data import bucketing, collate
from mt.data.prepare import prepare
from mt.errors import ConfigError, DataError
from mt.evaluation import compare
from mt.evaluation.compare import ModelRow
from mt.interfaces import Batch
from mt.runtime import console, files
from mt.runtime.device import pick_device, use_threads
from mt.training import finetuning
from mt.training.loop import train
from mt.training.setup import build_module
from mt.training.teacher import open_teacher

PADDED_TOKENS = 4096
"""Padded tokens of a batch from which importance is measured."""
FINE_TUNE_RATE = 0.3
"""Peak learning rate of fine-tuning, as a share of the run's."""
NUM_VALIDATIONS = 3
"""Least number of validations in fine-tuning."""


@dataclass(frozen=True)
class PruneRequest:
    """The parts to remove."""

    heads: float = 0.0
    """The share of heads."""
    closed: bool = False
    """Remove the heads whose gates training has closed, rather than a share."""
    columns: float = 0.0
    """The share of feed-forward columns, of each layer."""
    layers: tuple[tuple[str, int], ...] = ()
    """How many layers remain: `encoder` or `decoder`, and a number."""
    uneven: bool = False
    """Remove the least important heads of all, rather than as many of each attention."""


@dataclass(frozen=True)
class PruneResult:
    """A pruned run."""

    run: Path
    rows: list[ModelRow]
    """Before, pruned and fine-tuned."""
    parameters: tuple[int, int]
    """Before and after."""
    summary: str
    """How many parts remain, in words."""


def parse_request(
    heads: str | None, ff: str | None, layers: str | None, uneven: bool
) -> PruneRequest:
    """Parse the options of the command line: `50%`, `25%`, `encoder=4,decoder=2`.

    Raises:
        ConfigError: there is no option, or one is malformed.
    """
    if heads is None and ff is None and layers is None:
        what, advice = "there is nothing to prune", "say for instance --heads 50%"
        raise ConfigError("USAGE", "mt prune", what, advice)
    stacks = []
    for part in layers.split(",") if layers else []:
        match = re.fullmatch(r"(encoder|decoder)=(0*[1-9]\d*)", part.strip())
        if match is None:
            advice = "say how many layers stay, for instance --layers encoder=4,decoder=2"
            raise ConfigError("USAGE", "--layers", f"{part!r} is not of that form", advice)
        stacks.append((match[1], int(match[2])))
    closed = heads == "closed"
    share = 0.0 if closed else _parse_share("--heads", heads)
    return PruneRequest(share, closed, _parse_share("--ff", ff), tuple(stacks), uneven)


def _parse_share(option: str, text: str | None) -> float:
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)%", "0%" if text is None else text)
    if match is None or float(match[1]) >= 100:
        advice = f"say which share goes, for instance {option} 50%"
        raise ConfigError("USAGE", option, f"{text!r} is no share below 100%", advice)
    return float(match[1]) / 100


def prune(
    path: Path, request: PruneRequest, steps: int = 0, out: Path | None = None,
    choice: str | None = None, sets: Sequence[str] = (), pairs: int = 1000,
) -> PruneResult:  # fmt: skip
    """Prune a run, or a checkpoint in one, into a new run, and fine-tune that by some updates.

    `out` is by default beside the run, NAME-pruned; `sets` change its recipe. Importance is
    measured on `pairs` training pairs, or validation pairs of a streamed corpus.

    Raises:
        ConfigError: the model cannot be pruned so; names the option or key, before any work.
        DataError: the run's data have changed.
        Stopped: a signal came while fine-tuning; training the new run continues from there.
    """
    opened = run_directory.open_run(path, choice)
    check_request(opened, request)
    out = out or opened.run.resolve().with_name(f"{opened.run.resolve().name}-pruned")
    if out.exists():
        advice = f"choose another with -o; mt train {out}/config.yaml --run {out} trains it on"
        raise ConfigError("PRUNE-EXISTS", out, "there is something already", advice)
    plugin("objectives", opened.recipe.objective.kind)  # an untrusted one is refused
    plugin("optimizers", opened.recipe.optimizer.kind)
    recipe = pruned_recipe(opened.recipe, {}, steps, sets)  # reports its errors before the work
    device = pick_device(recipe.runtime.device)
    use_threads(recipe.runtime.threads)
    batches = importance_batches(recipe, opened, pairs, device)
    model = opened.model().to(device)
    before = _count_parameters(model)
    summary = shrink_model(model, request, batches)
    recipe = pruned_recipe(opened.recipe, head_importance.layer_sizes(model), steps, sets)
    write_pruned_run(out, model, recipe, opened)
    rows = compare.compare_models({"before": opened.folder, "pruned": out}, recipe)
    if steps:
        console.print_line(f"mt: {summary}; fine-tuning {steps} updates in {out}")
        train(recipe, out)
        original, tuned = compare.compare_models(
            {"before": opened.folder, "fine-tuned": out}, recipe
        )
        rows = [original, rows[1], tuned]
    return PruneResult(out, rows, (before, _count_parameters(model)), summary)


def _count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def check_request(opened: LoadedModel, request: PruneRequest) -> None:
    """Refuse what cannot be pruned.

    Raises:
        ConfigError: names the option or key at fault.
    """
    model: Any = opened.recipe.model
    if model.kind != "transformer":
        what = f"no heads can be removed from a model of kind {model.kind}"
        raise ConfigError("PRUNE-KIND", "model.kind", what, "prune a transformer")
    if request.closed and model.head_gates is None:
        advice = "train it with model.head_gates.kind=hard_concrete, or say --heads 50%"
        raise ConfigError("PRUNE-HEADS", "--heads closed", "the model has no gates", advice)
    for stack, count in request.layers:
        available = getattr(model, f"{stack}_layers")
        if count > available:
            where, advice = f"--layers {stack}={count}", "say how many layers stay"
            raise ConfigError("PRUNE-LAYERS", where, f"has {available}", advice)
    if request.heads and not request.uneven:
        most = max(n for part in ("encoder", "decoder", "cross") for n in model.heads(part))
        if round(request.heads * most) < 1:
            what = f"{request.heads:.0%} of {most} heads is less than one of each attention"
            raise ConfigError("PRUNE-HEADS", "--heads", what, "prune more, or add --uneven")


def pruned_recipe(recipe: Recipe, sizes: dict[str, Any], steps: int, sets: Sequence[str]) -> Recipe:
    """The recipe of the pruned run: the run's with other sizes and a short training.

    Raises:
        ConfigError: it is inconsistent.
    """
    value = dump(recipe)
    value["model"] |= sizes
    if steps:
        training, interval = value["training"], -(-steps // NUM_VALIDATIONS)
        training |= {"max_steps": steps, "max_epochs": None, "max_minutes": None, "patience": None}
        training |= {k: min(training[k], interval) for k in ("validate_every", "save_every")}
        warmup = value["schedule"]["warmup_steps"]
        value["schedule"]["warmup_steps"] = min(warmup, steps // 10)
        value["optimizer"]["learning_rate"] *= FINE_TUNE_RATE
    document = Document(value, name="the recipe of the run")
    trust_overrides(sets)
    for assignment in sets:
        document = override(document, assignment)
    return validate(Recipe, document)


def importance_batches(
    recipe: Recipe, opened: LoadedModel, pairs: int, device: torch.device
) -> list[Batch]:
    """Batches of random pairs of the run's data, the same ones in each call.

    Raises:
        DataError: the data have another vocabulary than the run.
    """
    prepared = prepare(
        recipe, console.print_line, finetuning.inherited_vocabulary(recipe, opened.run)
    )
    if prepared.vocabulary.digest != opened.vocabulary.digest:
        what = "the data now make another vocabulary than the run has"
        raise DataError("PRUNE-DATA", opened.run, what, "restore the data and their files")
    corpus = prepared.valid if prepared.train is None else prepared.train
    size = len(corpus.source_lengths)
    rows = np.random.default_rng(recipe.training.seed).permutation(size)[:pairs]
    sides = corpus.source_lengths[rows], corpus.target_lengths[rows]
    return [
        collate.to_device(collate.collate_pairs(corpus, rows[micro]), device)
        for micro in bucketing.bucket_by_length(*sides, PADDED_TOKENS, PADDED_TOKENS)
    ]


def shrink_model(model: nn.Module, request: PruneRequest, batches: Sequence[Batch]) -> str:
    """Remove the requested parts from a model; returns how many remain, in words."""
    remaining = []
    for stack, count in request.layers:
        numbers = head_importance.remove_layers(model, stack, count, batches)
        remaining.append(f"{stack} layers {', '.join(str(number + 1) for number in numbers)} left")
    gates = head_importance.fold_gates(model)
    if request.heads or request.closed:
        attentions = head_importance.attentions(model)
        before = sum(each.n_heads for each in attentions.values())
        if request.closed:
            kept = head_importance.heads_with_open_gates(gates, request.uneven)
        else:
            scores = head_importance.measure_importance(model, attentions, batches)
            kept = head_importance.heads_to_keep(scores, request.heads, request.uneven)
        for name, heads in kept.items():
            head_importance.keep_heads(attentions[name], heads)
        after = sum(each.n_heads for each in attentions.values())
        remaining.append(f"{after} of {before} heads left")
    if request.columns:  # measured without the removed heads
        layers = head_importance.feed_forwards(model)
        scores = head_importance.measure_importance(model, layers, batches)
        kept = head_importance.columns_to_keep(scores, request.columns)
        for name, columns in kept.items():
            head_importance.keep_columns(layers[name], columns)
        remaining.append(f"{len(next(iter(kept.values())))} columns a feed-forward layer left")
    return ", ".join(remaining)


def write_pruned_run(out: Path, model: nn.Module, recipe: Recipe, opened: LoadedModel) -> None:
    """Write the new run, with one checkpoint of step 0, atomically."""
    device = torch.device("cpu")
    teacher = open_teacher(recipe, opened.vocabulary, device)
    module = build_module(recipe, opened.vocabulary, teacher, device)
    checkpoint.load_into(module.model, checkpoint.model_weights(model), out)
    optimizer = torch.optim.SGD(module.parameters())  # has no state
    averaged = module if recipe.training.ema else None
    tensors = checkpoint.training_tensors(module, averaged, optimizer)
    metadata = {"vocabulary": opened.vocabulary.digest, "pruned_from": opened.folder.name}
    with files.staged_folder(out) as hidden:
        run_directory.create_run(hidden, recipe, opened.vocabulary, opened.resolved)
        if opened.report:
            files.write_json(hidden / "report.json", opened.report)
        checkpoint.save_checkpoint(
            hidden, checkpoint.checkpoint_name(0), module.model, TrainState(), metadata, tensors
        )


def format_result(result: PruneResult) -> Iterator[str]:
    """The result as lines."""
    yield from compare.format_table(result.rows)
    before, after = result.parameters
    yield f"parameters: {before:,} -> {after:,}; {result.summary}"
    yield f"written: {result.run}"
