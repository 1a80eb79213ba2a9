"""Validation: loss by teacher forcing, and BLEU and chrF of free-running translations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from mt import batching, distributed, lengths, linear
from mt.config import plugin
from mt.contracts import Engine, Seq2Seq
from mt.distributed import ALONE, Precision, World
from mt.evaluate import bleu_and_chrf
from mt.prepare import Prepared
from mt.recipe import Recipe
from mt.step import TrainStep

SLOTS = 8192
"""Padded slots of one validation batch."""
Sums = dict[str, tuple[float, float]]
"""For each term of the loss its weighted total and its count."""


@dataclass(frozen=True)
class Validation:
    """What a validation found."""

    values: dict[str, float]
    """valid_loss (nats a token, labels not smoothed), valid_perplexity and, where there are
    translations to compare with, valid_bleu and valid_chrf."""
    samples: list[tuple[str, str, str]]
    """Source, reference and translation of the first pairs."""
    heat_map: tuple[Tensor, list[str], list[str]] | None
    """Cross-attention [T, S] of the first pair, its target and its source pieces."""

    def value(self, monitor: str) -> float:
        """What decides which checkpoint is best; larger is better."""
        return -self.values["valid_loss"] if monitor == "loss" else self.values[f"valid_{monitor}"]


def validate(
    step: TrainStep, prepared: Prepared, recipe: Recipe, device: torch.device,
    precision: Precision, stopping: Callable[[], bool], world: World = ALONE,
) -> Validation | None:  # fmt: skip
    """Validate the model of `step`; None when any process is asked to stop in the middle.

    Of several processes each takes a share, and all get the same result.

    Args:
        step: model and objective, whose weights may be an average of those that train.
        stopping: asked between batches whether to give up.
    """
    step.eval()
    with torch.inference_mode():
        sums = _sums(step, prepared, device, stopping, world)
    loss = _mean(distributed.gathered(world, sums))
    if loss is None:
        return None
    values = {"valid_loss": loss, "valid_perplexity": math.exp(min(loss, 700))}
    if recipe.data.valid.side is not None:  # there is nothing to translate
        return Validation(values, [], None)
    pairs = prepared.valid_pairs[: recipe.training.validate_sentences]
    sources = [cast(str, pair.source) for pair in pairs]
    references = [cast(str, pair.target) for pair in pairs]
    # On a CPU in fp32, whatever trains: which checkpoint is best should not hang on rounding.
    decoding: Precision = precision if device.type == "cuda" else "fp32"
    build = plugin("engines", "native").native_engine
    engine = build(step.model, prepared.vocabulary, recipe, device, decoding)
    try:
        share = _translated(engine, sources[world.rank :: world.size], stopping)
    finally:
        linear.pack(step.model, None)  # the weights will change
    shares = distributed.gathered(world, share)
    hypotheses = [""] * len(sources)
    for rank, texts in enumerate(shares):
        if texts is None:
            return None
        hypotheses[rank :: world.size] = texts
    language = recipe.data.valid.direction.target
    bleu, chrf = distributed.of_first(
        world, lambda: list(bleu_and_chrf(hypotheses, references, language, recipe.evaluation))
    )
    heat_map = None
    if world.first:
        with torch.inference_mode():
            heat_map = _heat_map(step.model, prepared, device)
    values |= {"valid_bleu": bleu, "valid_chrf": chrf}
    return Validation(values, list(zip(sources, references, hypotheses, strict=True)), heat_map)


def _translated(
    engine: Engine, sources: list[str], stopping: Callable[[], bool]
) -> list[str] | None:
    """The translations of `sources`, or None when asked to stop."""
    texts = []
    for translation in engine.translate(sources):
        texts.append(translation.text)
        if stopping():
            return None
    return texts


def _mean(shares: list[Sums | None]) -> float | None:
    """The sum over terms of weighted totals by counts, or None when a share is missing."""
    totals: dict[str, float] = {}
    counts: dict[str, float] = {}
    for share in shares:
        if share is None:
            return None
        for name, (total, count) in share.items():
            totals[name] = totals.get(name, 0.0) + total
            counts[name] = counts.get(name, 0.0) + count
    return sum(totals[name] / max(1.0, counts[name]) for name in totals)


def _sums(
    step: TrainStep, prepared: Prepared, device: torch.device, stopping: Callable[[], bool],
    world: World,
) -> Sums | None:  # fmt: skip
    """The weighted sums of the objective's terms over a share of the validation corpus."""
    corpus = prepared.valid
    sums: Sums = {}
    micros = lengths.cut(corpus.source_lengths, corpus.target_lengths, SLOTS, SLOTS)
    for rows in micros[world.rank :: world.size]:
        if stopping():
            return None
        batch = batching.moved(batching.collate(corpus, rows), device)
        for term in step(batch):
            total, count = sums.get(term.name, (0.0, 0.0))
            total += term.weight * float(term.total)
            sums[term.name] = (total, count + float(term.count))
    return sums


def _heat_map(
    model: nn.Module, prepared: Prepared, device: torch.device
) -> tuple[Tensor, list[str], list[str]] | None:
    """The attention that aligns the first validation pair, when the model has such."""
    if not hasattr(model, "attention"):
        return None
    batch = batching.moved(batching.collate(prepared.valid, np.array([0])), device)
    attention = cast(Seq2Seq, model).attention(batch.source, batch.inputs)  # [1, T, S]
    vocabulary = prepared.vocabulary
    rows = vocabulary.pieces_target(batch.labels[0].tolist())
    columns = vocabulary.pieces_source(batch.source[0].tolist())
    return attention[0].float().cpu(), rows, columns
