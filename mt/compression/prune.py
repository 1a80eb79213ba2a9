"""Prune: a run in, a smaller run out, fine-tuned if wanted, both measured.

The new run begins with a checkpoint of step 0 that holds the pruned weights. So fine-tuning is
ordinary training that goes on from there, and whatever takes a run takes this one.
"""

from __future__ import annotations

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
from mt.config.recipe import Recipe, dump
from mt.config.validation import validate
from mt.config.yaml_reader import Document, override
from mt.data import bucketing, collate
from mt.data.prepare import prepare
from mt.errors import ConfigError, DataError
from mt.evaluation import compare
from mt.evaluation.compare import ModelRow
from mt.interfaces import Batch
from mt.models.modules.head_gates import gated
from mt.runtime import console, files
from mt.runtime.device import pick_device, use_threads
from mt.training import finetuning
from mt.training.loop import train
from mt.training.step import ModelWithLoss
from mt.training.teacher import open_teacher

PADDED_TOKENS = 4096
"""Padded slots of a batch from which importance is learned."""
FINE_TUNE_RATE = 0.3
"""Fine-tuning's peak learning rate, as a share of the run's."""
NUM_VALIDATIONS = 3
"""How often fine-tuning validates, at least."""


@dataclass(frozen=True)
class PruneRequest:
    """What is to go."""

    heads: float = 0.0
    """The share of heads."""
    closed: bool = False
    """The heads whose gates learning has closed, rather than a share."""
    columns: float = 0.0
    """The share of feed-forward columns, of each layer."""
    layers: tuple[tuple[str, int], ...] = ()
    """How many layers stay: `encoder` or `decoder`, and a number."""
    uneven: bool = False
    """Take the least important heads of all, rather than as many of each attention."""


@dataclass(frozen=True)
class PruneResult:
    """What was pruned."""

    run: Path
    rows: list[ModelRow]
    """Before, pruned and fine-tuned."""
    parameters: tuple[int, int]
    """Before and after."""
    left: str
    """What is left of what, in words."""


def parse_request(
    heads: str | None, ff: str | None, layers: str | None, uneven: bool
) -> PruneRequest:
    """What the command line asks for: `50%`, `25%`, `encoder=4,decoder=2`.

    Raises:
        ConfigError: nothing, or nothing that can be read.
    """
    if heads is None and ff is None and layers is None:
        what, advice = "there is nothing to prune", "say for instance --heads 50%"
        raise ConfigError("USAGE", "mt prune", what, advice)
    stacks = []
    for part in layers.split(",") if layers else []:
        stack, _, count = part.strip().partition("=")
        if stack not in ("encoder", "decoder") or not count.isdigit() or int(count) < 1:
            advice = "say how many layers stay, for instance --layers encoder=4,decoder=2"
            raise ConfigError("USAGE", "--layers", f"{part!r} is not of that form", advice)
        stacks.append((stack, int(count)))
    closed = heads == "closed"
    share = 0.0 if closed else _parse_amount("--heads", heads)
    return PruneRequest(share, closed, _parse_amount("--ff", ff), tuple(stacks), uneven)


def _parse_amount(option: str, text: str | None) -> float:
    if text is None:
        return 0.0
    number = text.removesuffix("%")
    if text.endswith("%") and number.replace(".", "", 1).isdigit() and float(number) < 100:
        return float(number) / 100
    advice = f"say which share goes, for instance {option} 50%"
    raise ConfigError("USAGE", option, f"{text!r} is no share below 100%", advice)


def prune(
    path: Path, want: PruneRequest, steps: int = 0, out: Path | None = None,
    choice: str | None = None, sets: Sequence[str] = (), pairs: int = 1000,
) -> PruneResult:  # fmt: skip
    """Prune a run into a new one, and fine-tune it.

    Args:
        path: a run directory, or a checkpoint folder in one.
        want: what is to go.
        steps: updates of fine-tuning.
        out: the new run; by default beside the run, NAME-pruned.
        choice: which checkpoint; the best when left out.
        sets: changes to the new run's recipe, `key=value`.
        pairs: sentence pairs of the training data (of the validation data, where they are
            streamed) from which importance is learned.

    Raises:
        ConfigError: the model cannot be pruned so; names the option or key, before any work.
        DataError: the run's data have changed.
        Stopped: a signal came while fine-tuning; training the new run goes on from there.
    """
    opened = run_directory.open_run(path, choice)
    check_request(opened, want)
    out = out or opened.run.resolve().with_name(f"{opened.run.resolve().name}-pruned")
    if out.exists():
        advice = f"choose another with -o; mt train {out}/config.yaml --run {out} trains it on"
        raise ConfigError("PRUNE-EXISTS", out, "there is something already", advice)
    recipe = pruned_recipe(opened.recipe, {}, steps, sets)  # what is wrong with it is told at once
    device = pick_device(recipe.runtime.device)
    use_threads(recipe.runtime.threads)
    batches = importance_batches(recipe, opened, pairs, device)
    model = opened.model().to(device)
    parameters = [_count(model)]
    left = shrink_model(model, want, batches)
    parameters.append(_count(model))
    recipe = pruned_recipe(opened.recipe, head_importance.layer_sizes(model), steps, sets)
    write_pruned_run(out, model, recipe, opened)
    rows = compare.compare_models({"before": opened.folder, "pruned": out}, recipe)
    if steps:
        console.print_line(f"mt: {left}; fine-tuning {steps} updates in {out}")
        train(recipe, out)
        before, tuned = compare.compare_models({"before": opened.folder, "fine-tuned": out}, recipe)
        rows = [before, rows[1], tuned]
    return PruneResult(out, rows, (parameters[0], parameters[1]), left)


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def check_request(opened: LoadedModel, want: PruneRequest) -> None:
    """Refuse what cannot be pruned.

    Raises:
        ConfigError: names the option or key that is in the way.
    """
    model: Any = opened.recipe.model
    if model.kind != "transformer":
        what = f"no heads can be removed from a model of kind {model.kind}"
        raise ConfigError("PRUNE-KIND", "model.kind", what, "prune a transformer")
    if want.closed and model.head_gates is None:
        advice = "train it with model.head_gates.kind=hard_concrete, or say --heads 50%"
        raise ConfigError("PRUNE-HEADS", "--heads closed", "the model has no gates", advice)
    for stack, count in want.layers:
        have = getattr(model, f"{stack}_layers")
        if count > have:
            advice = "say how many layers stay"
            raise ConfigError("PRUNE-LAYERS", f"--layers {stack}={count}", f"has {have}", advice)
    if want.heads and not want.uneven:
        parts = [n for part in ("encoder", "decoder", "cross") for n in model.heads(part)]
        if round(want.heads * max(parts)) < 1:
            what = f"{want.heads:.0%} of {max(parts)} heads is less than one of each attention"
            raise ConfigError("PRUNE-HEADS", "--heads", what, "prune more, or add --uneven")


def pruned_recipe(recipe: Recipe, sizes: dict[str, Any], steps: int, sets: Sequence[str]) -> Recipe:
    """The recipe of the pruned run: the run's, of other sizes, to be trained for a little.

    Raises:
        ConfigError: it does not hold together.
    """
    value = dump(recipe)
    value["model"] |= sizes
    if steps:
        plan, every = value["training"], -(-steps // NUM_VALIDATIONS)
        plan |= {"max_steps": steps, "max_epochs": None, "max_minutes": None, "patience": None}
        plan |= {key: min(plan[key], every) for key in ("validate_every", "save_every")}
        warmup = value["schedule"]["warmup_steps"]
        value["schedule"]["warmup_steps"] = min(warmup, steps // 10)
        value["optimizer"]["learning_rate"] *= FINE_TUNE_RATE
    document = Document(value, name="the recipe of the run")
    for assignment in sets:
        document = override(document, assignment)
    return validate(Recipe, document)


def importance_batches(
    recipe: Recipe, opened: LoadedModel, pairs: int, device: torch.device
) -> list[Batch]:
    """Some of the run's pairs, always the same ones, as batches.

    Raises:
        DataError: they are not cut into pieces as the run's were.
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


def shrink_model(model: nn.Module, want: PruneRequest, batches: Sequence[Batch]) -> str:
    """Take out of a model what is wanted; what is left of what, in words."""
    told = []
    for stack, count in want.layers:
        numbers = head_importance.remove_layers(model, stack, count, batches)
        told.append(f"{stack} layers {', '.join(str(number + 1) for number in numbers)} left")
    gates = head_importance.fold_gates(model)
    every, layers = head_importance.attentions(model), head_importance.feed_forwards(model)
    if want.heads or want.closed:
        before = sum(each.n_heads for each in every.values())
        if want.closed:
            kept_heads = head_importance.heads_with_open_gates(gates, want.uneven)
        else:
            heads = head_importance.measure_importance(model, batches).heads
            kept_heads = head_importance.heads_to_keep(heads, want.heads, want.uneven)
        for name, kept in kept_heads.items():
            head_importance.keep_heads(every[name], kept)
        after = sum(each.n_heads for each in every.values())
        told.append(f"{after} of {before} heads left")
    if want.columns:
        columns_felt = head_importance.measure_importance(
            model, batches
        ).columns  # of the heads that are left
        kept_columns = head_importance.columns_to_keep(columns_felt, want.columns)
        for name, columns in kept_columns.items():
            head_importance.keep_columns(layers[name], columns)
        told.append(f"{len(next(iter(kept_columns.values())))} columns a feed-forward layer left")
    return ", ".join(told)


def write_pruned_run(out: Path, model: nn.Module, recipe: Recipe, opened: LoadedModel) -> None:
    """The new run, with one checkpoint of step 0; it appears whole or not at all."""
    weights = checkpoint.model_weights(model)
    fresh = plugin("models", recipe.model.kind).build(recipe.model, opened.vocabulary)
    checkpoint.load_into(fresh, weights, out)  # the recipe tells the very shapes that are left
    build = plugin("objectives", recipe.objective.kind).build
    teacher = open_teacher(recipe, opened.vocabulary, torch.device("cpu"))
    objective = build(recipe.objective, fresh, opened.vocabulary, teacher)
    step = ModelWithLoss(fresh, gated(objective, fresh, recipe.model), "fp32")
    nothing = torch.optim.SGD(step.parameters())  # an optimizer without any state
    averaged = step if recipe.training.ema else None
    tensors = checkpoint.training_tensors(step, averaged, nothing)
    about = {"vocabulary": opened.vocabulary.digest, "pruned_from": str(opened.folder.name)}
    with files.staged_folder(out) as hidden:
        run_directory.create_run(hidden, recipe, opened.vocabulary, opened.resolved)
        if opened.report:
            files.write_json(hidden / "report.json", opened.report)
        checkpoint.save_checkpoint(
            hidden, checkpoint.checkpoint_name(0), fresh, TrainState(), about, tensors
        )


def format_result(done: PruneResult) -> Iterator[str]:
    """What was found, as lines."""
    yield from compare.format_table(done.rows)
    before, after = done.parameters
    yield f"parameters: {before:,} -> {after:,}; {done.left}"
    yield f"written: {done.run}"
