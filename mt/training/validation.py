"""Validation: loss by teacher forcing, and BLEU and chrF of free-running translations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from mt.config.plugins import plugin
from mt.config.recipe import Recipe
from mt.data import bucketing, collate
from mt.data.bucketing import PairIndices
from mt.data.cache import PreparedData
from mt.data.corpus import EncodedPairs
from mt.data.pairs import Pair
from mt.decoding.types import Engine, EngineOptions
from mt.errors import ConfigError
from mt.evaluation.metrics import bleu_and_chrf
from mt.interfaces import Batch, Seq2Seq, Term
from mt.models.modules import linear
from mt.runtime import distributed, memory
from mt.runtime.device import Precision
from mt.runtime.distributed import SINGLE, World
from mt.special_tokens import MASK
from mt.training.step import ModelWithLoss, split_batch

PADDED_TOKENS = 8192
"""Padded slots of one validation batch."""
TRAIN_PAIRS = 1000
"""Training pairs whose loss is reported beside that of the validation pairs."""
Sums = dict[str, tuple[float, float]]
"""For each term of the loss its weighted total and its count."""


@dataclass(frozen=True)
class Validation:
    """What a validation found."""

    values: dict[str, float]
    """valid_loss (nats a token, labels not smoothed), valid_perplexity and, where there are
    translations to compare with, valid_bleu and valid_chrf. Where the training pairs are at hand,
    train_loss: the same as valid_loss, of some of them."""
    samples: list[tuple[str, str, str]]
    """Source, reference and translation of the first pairs."""
    heat_map: tuple[Tensor, list[str], list[str]] | None
    """Cross-attention [T, S] of the first pair, its target and its source pieces."""

    def value(self, monitor: str) -> float:
        """What decides which checkpoint is best; larger is better."""
        return -self.values["valid_loss"] if monitor == "loss" else self.values[f"valid_{monitor}"]


def validate(
    step: ModelWithLoss, prepared: PreparedData, recipe: Recipe, device: torch.device,
    precision: Precision, stopping: Callable[[], bool], world: World = SINGLE,
) -> Validation | None:  # fmt: skip
    """Validate the model of `step`; None when any process is asked to stop in the middle.

    Of several processes each takes a share, and all get the same result.

    Args:
        step: model and objective, whose weights may be an average of those that train.
        stopping: asked between batches whether to give up.
    """
    step.eval()
    loss = _loss(step, prepared.valid, np.arange(len(prepared.valid)), device, stopping, world)
    if loss is None:
        return None
    values = {"valid_loss": loss, "valid_perplexity": math.exp(min(loss, 700))}
    rows = _train_loss(prepared.train, recipe)
    if prepared.train is not None and len(rows):
        trained = _loss(step, prepared.train, rows, device, stopping, world)
        if trained is None:
            return None
        values["train_loss"] = trained
    directions = _by_direction(prepared.valid_pairs, recipe.training.validate_sentences)
    if not directions:  # there is nothing to translate
        return Validation(values, [], None)
    # On a CPU in fp32, whatever trains: which checkpoint is best should not hang on rounding.
    decoding: Precision = precision if device.type == "cuda" else "fp32"
    build = plugin("engines", "native").native_engine
    engine = build(step.model, prepared.vocabulary, recipe, device, decoding)
    try:
        found = [
            _translate_pairs(engine, pairs, target, stopping, world)
            for (_, target), pairs in directions.items()
        ]
    finally:
        linear.pack(step.model, None)  # the weights will change
    values |= {"valid_bleu": 0.0, "valid_chrf": 0.0}
    samples: list[tuple[str, str, str]] = []
    for ((source, target), pairs), hypotheses in zip(directions.items(), found, strict=True):
        if hypotheses is None:
            return None
        texts = [(cast(str, pair.source), cast(str, pair.target)) for pair in pairs]
        scores = _scores(hypotheses, [reference for _, reference in texts], target, recipe, world)
        for name, score in zip(("bleu", "chrf"), scores, strict=True):
            values[f"valid_{name}"] += score / len(directions)
            if len(directions) > 1:
                values[f"valid_{name}_{source}-{target}"] = score
        samples += [(a, b, made) for (a, b), made in zip(texts, hypotheses, strict=True)]
    heat_map = None
    if world.is_main:
        with torch.inference_mode():
            heat_map = _heat_map(step.model, prepared, device)
    return Validation(values, _spread_rows(samples, len(directions)), heat_map)


def _by_direction(pairs: Sequence[Pair], most: int) -> dict[tuple[str, str], list[Pair]]:
    """The first pairs of each direction, those of one side left out."""
    found: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        if pair.source is not None and pair.target is not None:
            found.setdefault((pair.source_language, pair.target_language), []).append(pair)
    return {direction: group[:most] for direction, group in found.items()}


def _spread_rows(
    samples: list[tuple[str, str, str]], directions: int
) -> list[tuple[str, str, str]]:
    """The samples in an order in which the first few are of several directions."""
    step = -(-len(samples) // directions)
    return [each for start in range(step) for each in samples[start::step]]


def _translate_pairs(
    engine: Engine, pairs: Sequence[Pair], target: str, stopping: Callable[[], bool], world: World
) -> list[str] | None:
    """The translations of all pairs' sources, each process's share; None when asked to stop."""
    mine: list[str] | None = []
    sources = [cast(str, pair.source) for pair in pairs[world.rank :: world.size]]
    for translation in engine.translate(sources, EngineOptions(target_language=target)):
        assert mine is not None
        mine.append(translation.text)
        if stopping():
            mine = None
            break
    hypotheses = [""] * len(pairs)
    for rank, texts in enumerate(distributed.all_gather_json(world, mine)):
        if texts is None:
            return None
        hypotheses[rank :: world.size] = texts
    return hypotheses


def _scores(
    hypotheses: Sequence[str], references: Sequence[str], target: str, recipe: Recipe, world: World
) -> list[float]:
    """BLEU and chrF2 of one direction, as the first process finds them."""
    evaluation = recipe.evaluation
    return distributed.from_main(
        world, lambda: list(bleu_and_chrf(hypotheses, references, target, evaluation))
    )


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


def _train_loss(pairs: EncodedPairs | None, recipe: Recipe) -> PairIndices:
    """Some of the training pairs, evenly spread, of the kind that validation pairs are."""
    if pairs is None:
        return np.array([], dtype=np.int64)
    tokens, starts = pairs.arrays("source")
    alone = tokens[starts[:-1]] == MASK  # what has one side only begins with it
    rows = np.flatnonzero(alone == (recipe.data.valid.side is not None))
    count = min(TRAIN_PAIRS, len(rows))
    return rows[np.arange(count) * len(rows) // max(1, count)]


def _loss(
    step: ModelWithLoss, pairs: EncodedPairs, rows: PairIndices, device: torch.device,
    stopping: Callable[[], bool], world: World,
) -> float | None:  # fmt: skip
    """The mean loss of the pairs at `rows`, which the processes share; None when asked to stop."""
    with torch.inference_mode():
        sums = _sums(step, pairs, rows, device, stopping, world)
    return _mean(distributed.all_gather_json(world, sums))


def _sums(
    step: ModelWithLoss, pairs: EncodedPairs, rows: PairIndices, device: torch.device,
    stopping: Callable[[], bool], world: World,
) -> Sums | None:  # fmt: skip
    """The weighted sums of the objective's terms over this process's share of the pairs."""
    sums: Sums = {}
    micros = bucketing.bucket_by_length(
        pairs.source_lengths[rows], pairs.target_lengths[rows], PADDED_TOKENS, PADDED_TOKENS
    )
    for micro in micros[world.rank :: world.size]:
        if stopping():
            return None
        batch = collate.to_device(collate.collate_pairs(pairs, rows[micro]), device)
        for term in _terms(step, batch):
            total, count = sums.get(term.name, (0.0, 0.0))
            total += term.weight * float(term.total)
            sums[term.name] = (total, count + float(term.count))
    return sums


def _terms(step: ModelWithLoss, batch: Batch) -> Iterator[Term]:
    """The objective's terms; where memory does not suffice, those of the halves of the batch.

    Raises:
        MachineError: one pair alone does not fit.
    """
    try:
        yield from step(batch)
        return
    except (MemoryError, RuntimeError) as error:
        if not memory.is_out_of_memory(error):
            raise
        message = memory.first_line(error)
    for half in split_batch(batch, message):
        yield from _terms(step, half)


def _heat_map(
    model: nn.Module, prepared: PreparedData, device: torch.device
) -> tuple[Tensor, list[str], list[str]] | None:
    """The attention that aligns the first validation pair, when the model has such."""
    if not hasattr(model, "attention"):
        return None
    batch = collate.to_device(collate.collate_pairs(prepared.valid, np.array([0])), device)
    try:
        attention = cast(Seq2Seq, model).attention(batch.source, batch.inputs)  # [1, T, S]
    except ConfigError:  # it looks at no source word
        return None
    vocabulary = prepared.vocabulary
    rows = vocabulary.pieces_target(batch.labels[0].tolist())
    columns = vocabulary.pieces_source(batch.source[0].tolist())
    return attention[0].float().cpu(), rows, columns
