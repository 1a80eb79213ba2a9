"""The updates of `mt train` in this process, without validation, checkpoints and reports."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from mt.config import schema
from mt.config.plugins import plugin
from mt.data import batch_sampler, collate
from mt.interfaces import Batch, Objective
from mt.runtime.device import Precision
from mt.training.step import ModelWithLoss, accumulate_gradients


def build_step(recipe: Any, vocabulary: Any, precision: Precision = "fp32") -> ModelWithLoss:
    """Return model and objective of a recipe; of anything that has these two sections."""
    model = plugin("models", recipe.model.kind).build(recipe.model, vocabulary)
    objective = plugin("objectives", recipe.objective.kind).build(
        recipe.objective, model, vocabulary, None
    )
    return ModelWithLoss(model, objective, precision)


def build_optimizer(config: Any, step: ModelWithLoss) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe's section."""
    return plugin("optimizers", config.kind).build(config, list(step.named_parameters()))


class Updates:
    """Updates of one recipe in one precision; the weights are those of seed 1."""

    def __init__(self, recipe: Any, vocabulary: Any, precision: Precision = "fp32") -> None:
        torch.manual_seed(1)
        self.step = build_step(recipe, vocabulary, precision)
        self.optimizer = build_optimizer(recipe.optimizer, self.step)
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)

    def __call__(self, batches: list[Batch]) -> None:
        """Do one update."""
        accumulate_gradients(self.step, cast(Objective, self.step.objective), batches, self.scaler)
        nn.utils.clip_grad_norm_(self.step.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()


def first_updates(corpus: Any, config: schema.BatchingConfig, slots: int, count: int) -> Any:
    """Return the micro-batches of the first updates of the first epoch, a list for each update."""
    plan = batch_sampler.EpochPlan(
        corpus.source_lengths, corpus.target_lengths, config, slots, 1, 0
    )
    return [
        [collate.collate_pairs(corpus, m) for m in update] for update in plan.updates(0)[:count]
    ]
