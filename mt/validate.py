"""Validation: loss by teacher forcing, and BLEU and chrF of free-running translations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from mt import batching, lengths
from mt.config import plugin
from mt.contracts import Seq2Seq
from mt.distributed import Precision
from mt.evaluate import bleu_and_chrf
from mt.prepare import Prepared
from mt.recipe import Recipe
from mt.step import TrainStep

SLOTS = 8192
"""Padded slots of one validation batch."""


@dataclass(frozen=True)
class Validation:
    """What a validation found."""

    values: dict[str, float]
    """valid_loss (nats a token, labels not smoothed), valid_perplexity, valid_bleu, valid_chrf."""
    samples: list[tuple[str, str, str]]
    """Source, reference and translation of the first pairs."""
    heat_map: tuple[Tensor, list[str], list[str]] | None
    """Cross-attention [T, S] of the first pair, its target and its source pieces."""

    def value(self, monitor: str) -> float:
        """What decides which checkpoint is best; larger is better."""
        return -self.values["valid_loss"] if monitor == "loss" else self.values[f"valid_{monitor}"]


def validate(
    step: TrainStep, prepared: Prepared, recipe: Recipe, device: torch.device,
    precision: Precision, stopping: Callable[[], bool],
) -> Validation | None:  # fmt: skip
    """Validate the model of `step`; None when asked to stop in the middle.

    Args:
        step: model and objective, whose weights may be an average of those that train.
        stopping: asked between batches whether to give up.
    """
    step.eval()
    with torch.inference_mode():
        loss = _loss(step, prepared, device, stopping)
        heat_map = None if loss is None else _heat_map(step.model, prepared, device)
    if loss is None:
        return None
    pairs = prepared.valid_pairs[: recipe.training.validate_sentences]
    sources = [cast(str, pair.source) for pair in pairs]
    references = [cast(str, pair.target) for pair in pairs]
    # On a CPU a step of decoding is too small for bf16 to pay: fp32, as `mt translate` does.
    decoding: Precision = precision if device.type == "cuda" else "fp32"
    build = plugin("engines", "native").native_engine
    engine = build(step.model, prepared.vocabulary, recipe, device, decoding)
    hypotheses = []
    for translation in engine.translate(sources):
        hypotheses.append(translation.text)
        if stopping():
            return None
    language = recipe.data.valid.direction.target
    bleu, chrf = bleu_and_chrf(hypotheses, references, language, recipe.evaluation)
    values = {
        "valid_loss": loss,
        "valid_perplexity": math.exp(min(loss, 700)),
        "valid_bleu": bleu,
        "valid_chrf": chrf,
    }
    return Validation(values, list(zip(sources, references, hypotheses, strict=True)), heat_map)


def _loss(
    step: TrainStep, prepared: Prepared, device: torch.device, stopping: Callable[[], bool]
) -> float | None:
    """The weighted mean of the objective's terms over the validation corpus."""
    corpus = prepared.valid
    totals: dict[str, float] = {}
    counts: dict[str, float] = {}
    for rows in lengths.cut(corpus.source_lengths, corpus.target_lengths, SLOTS, SLOTS):
        if stopping():
            return None
        batch = batching.moved(batching.collate(corpus, rows), device)
        for term in step(batch):
            totals[term.name] = totals.get(term.name, 0.0) + term.weight * float(term.total)
            counts[term.name] = counts.get(term.name, 0.0) + float(term.count)
    return sum(totals[name] / max(1.0, counts[name]) for name in totals)


def _heat_map(
    model: nn.Module, prepared: Prepared, device: torch.device
) -> tuple[Tensor, list[str], list[str]] | None:
    """The last cross-attention over the first validation pair, its heads averaged."""
    watched = [m for name, m in model.named_modules() if name.endswith("cross_attention")]
    if not watched or not hasattr(watched[-1], "watch"):
        return None
    batch = batching.moved(batching.collate(prepared.valid, np.array([0])), device)
    seen: list[Tensor] = []
    watched[-1].watch = seen
    try:
        seq2seq = cast(Seq2Seq, model)
        seq2seq.decode(batch.inputs, seq2seq.encode(batch.source))
    finally:
        watched[-1].watch = None
    vocabulary = prepared.vocabulary
    rows = vocabulary.pieces_target(batch.labels[0].tolist())
    columns = vocabulary.pieces_source(batch.source[0].tolist())
    return seen[0][0].mean(0).float().cpu(), rows, columns
