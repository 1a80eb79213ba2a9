"""Validation: loss by teacher forcing, and BLEU and chrF of free-running translations.

Where `training.monitor` is another metric, that one, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from mt.config.recipe import Recipe
from mt.data import bucketing, collate
from mt.data.bucketing import PairIndices
from mt.data.cache import PreparedData
from mt.data.corpus import EncodedPairs
from mt.data.pairs import Pair
from mt.decoding.quality import as_values, confidence, fit
from mt.decoding.types import ONE_SEARCH, Engine, EngineOptions
from mt.errors import ConfigError
from mt.evaluation.output_figures import output_figures
from mt.evaluation.scoring import score_by, sentence_chrf
from mt.interfaces import Batch, Seq2Seq, Term
from mt.runtime import distributed, memory
from mt.runtime.distributed import SINGLE, World
from mt.special_tokens import MASK
from mt.training.step import ModelWithLoss, split_batch
from mt.training.validation_engine import ValidationEngine

PADDED_TOKENS = 8192
"""Padded tokens of one validation batch."""
TRAIN_PAIRS = 1000
"""Training pairs whose loss is reported beside that of the validation pairs."""
Sums = dict[str, tuple[float, float]]
"""The weighted total and the count of each term of the loss."""
Criteria = dict[str, float | None]
"""What is monitored, `chrf` and `loss`: larger is better (where it is not, the value is negated),
None is undefined."""


@dataclass(frozen=True)
class Validation:
    """The result of a validation."""

    values: dict[str, float]
    """valid_loss (nats a token, labels not smoothed), valid_perplexity and, where there are
    translations to compare with, valid_bleu, valid_chrf, what is monitored, and the figures of the
    output (valid_copied, valid_repeated, valid_length_ratio). When the corpus
    is not streamed, train_loss: the same as valid_loss, of some training pairs."""
    samples: list[tuple[str, str, str]]
    """Source, reference and translation of the first pairs."""
    heat_map: tuple[Tensor, list[str], list[str]] | None
    """Cross-attention [T, S] of the first pair, its target and its source pieces."""
    quality: dict[str, float] | None = None
    """The `Calibration` of the translations; None where it cannot be had."""
    negated: frozenset[str] = frozenset({"loss"})
    """Of what less is better."""

    def criteria(self, monitor: str) -> Criteria:
        """Return what decides which checkpoint is best, the most important first."""
        order = {"loss": ("loss",), "chrf": ("chrf", "loss")}.get(
            monitor, (monitor, "chrf", "loss")
        )
        values = {name: self.values.get(f"valid_{name}") for name in order}
        return {
            name: None if value is None or not math.isfinite(value)
            else -value if name in self.negated else value
            for name, value in values.items()
        }  # fmt: skip


def lower_is_better(recipe: Recipe) -> frozenset[str]:
    """Return the criteria of a recipe that are better when they are lower."""
    monitor = recipe.training.monitor
    if monitor == "loss" or recipe.evaluation.metric(monitor).higher_is_better:
        return frozenset({"loss"})
    return frozenset({"loss", monitor})


def deciding_criterion(new: Criteria, best: Criteria) -> str:
    """Return the criterion by which a checkpoint is better than the best; empty if it is not.

    The first that both have and that differs decides. A first checkpoint is better than none by
    the first criterion that is defined.
    """
    for name, value in new.items():
        other = best.get(name)
        if value is not None and other is not None and value != other:
            return name if value > other else ""
    if any(value is not None for value in best.values()):
        return ""
    return next((name for name, value in new.items() if value is not None), "")


def validate(
    module: ModelWithLoss, prepared: PreparedData, recipe: Recipe, device: torch.device,
    translator: ValidationEngine, stopped: Callable[[], bool], world: World = SINGLE,
) -> Validation | None:  # fmt: skip
    """Validate a module; None when `stopped` became true on any rank meanwhile.

    Each rank takes a share of the work, and all get the same result.
    """
    module.eval()
    loss = _loss(module, prepared.valid, np.arange(len(prepared.valid)), device, stopped, world)
    if loss is None:
        return None
    values = {"valid_loss": loss, "valid_perplexity": math.exp(min(loss, 700))}
    rows = _select_train_rows(prepared.train, recipe)
    if prepared.train is not None and len(rows):
        train_loss = _loss(module, prepared.train, rows, device, stopped, world)
        if train_loss is None:
            return None
        values["train_loss"] = train_loss
    directions = group_by_direction(prepared.valid_pairs, recipe.training.validate_sentences)
    if not directions:  # there is nothing to translate
        return Validation(values, [], None)
    with translator.open(module.model) as engine:
        translations = [
            _translate_pairs(engine, pairs, target, stopped, world)
            for (_, target), pairs in directions.items()
        ]
    labels = list(dict.fromkeys(("bleu", "chrf", recipe.training.monitor)))
    labels = [label for label in labels if label != "loss"]
    values |= {f"valid_{label}": 0.0 for label in labels}
    samples: list[tuple[str, str, str]] = []
    confidences: list[float] = []
    chrf: list[float] = []
    for ((source, target), pairs), translated in zip(directions.items(), translations, strict=True):
        if translated is None:
            return None
        hypotheses = [text for text, _ in translated]
        sources = [cast(str, pair.source) for pair in pairs]
        references = [cast(str, pair.target) for pair in pairs]
        texts = sources, hypotheses, references
        scores = distributed.from_main(world, partial(_scores, labels, *texts, target, recipe))
        confidences += [sure for _, sure in translated]
        chrf += sentence_chrf(hypotheses, references) if world.is_main else []
        for name, score in zip(labels, scores, strict=True):
            values[f"valid_{name}"] += score / len(directions)
            if len(directions) > 1:
                values[f"valid_{name}_{source}-{target}"] = score
        samples += zip(sources, references, hypotheses, strict=True)
    heat_map = None
    if world.is_main:
        with torch.inference_mode():
            heat_map = _heat_map(module.model, prepared, device)
    distance = -(-len(samples) // len(directions))  # so that the first are of several directions
    samples = [each for start in range(distance) for each in samples[start::distance]]
    sources, references, hypotheses = map(list, zip(*samples, strict=True))
    figures = output_figures(sources, hypotheses, references)
    values |= {f"valid_{name}": figure for name, figure in figures.items()}
    fitted = as_values(fit(confidences, chrf)) if world.is_main else None
    return Validation(values, samples, heat_map, fitted, lower_is_better(recipe))


def group_by_direction(pairs: Sequence[Pair], limit: int) -> dict[tuple[str, str], list[Pair]]:
    """Group the first pairs of each direction, without those of one side."""
    groups: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        if pair.source is not None and pair.target is not None:
            groups.setdefault((pair.source_language, pair.target_language), []).append(pair)
    return {direction: group[:limit] for direction, group in groups.items()}


def _translate_pairs(
    engine: Engine, pairs: Sequence[Pair], target: str, stopped: Callable[[], bool], world: World
) -> list[tuple[str, float]] | None:
    """Translate all sources, a share on each rank, with confidences; None when stopped."""
    own: list[tuple[str, float]] | None = []
    sources = [cast(str, pair.source) for pair in pairs[world.rank :: world.size]]
    options = EngineOptions(search=ONE_SEARCH, target_language=target, token_scores=True)
    for translation in engine.translate(sources, options):
        assert own is not None
        own.append((translation.text, confidence(translation.log_probabilities)))
        if stopped():
            own = None
            break
    translated = [("", 0.0)] * len(pairs)
    for rank, share in enumerate(distributed.all_gather_json(world, own)):
        if share is None:
            return None
        translated[rank :: world.size] = [(text, sure) for text, sure in share]
    return translated


def _scores(
    labels: Sequence[str], sources: Sequence[str], hypotheses: Sequence[str],
    references: Sequence[str], target: str, recipe: Recipe,
) -> list[float]:  # fmt: skip
    """Return the score of one direction by each metric; NaN: it is undefined."""
    texts = sources, hypotheses, references
    return [score_by(label, *texts, target, recipe.evaluation) for label in labels]


def _select_train_rows(pairs: EncodedPairs | None, recipe: Recipe) -> PairIndices:
    """Select TRAIN_PAIRS training pairs, evenly spread, of the kind of the validation pairs."""
    if pairs is None:
        return np.array([], dtype=np.int64)
    tokens, starts = pairs.arrays("source")
    monolingual = tokens[starts[:-1]] == MASK
    rows = np.flatnonzero(monolingual == (recipe.data.valid.side is not None))
    count = min(TRAIN_PAIRS, len(rows))
    return rows[np.arange(count) * len(rows) // max(1, count)]


def _loss(
    module: ModelWithLoss, pairs: EncodedPairs, rows: PairIndices, device: torch.device,
    stopped: Callable[[], bool], world: World,
) -> float | None:  # fmt: skip
    """Return the mean loss of the pairs at `rows`, a share on each rank; None when stopped."""
    with torch.inference_mode():
        own = _sum_terms(module, pairs, rows, device, stopped, world)
    sums: Sums = {}
    for share in distributed.all_gather_json(world, own):
        if share is None:
            return None
        for name, (total, count) in share.items():
            _add(sums, name, total, count)
    return sum(total / max(1.0, count) for total, count in sums.values())


def _sum_terms(
    module: ModelWithLoss, pairs: EncodedPairs, rows: PairIndices, device: torch.device,
    stopped: Callable[[], bool], world: World,
) -> Sums | None:  # fmt: skip
    """Sum the weighted terms of the objective over this rank's share of the pairs."""
    sums: Sums = {}
    micro_batches = bucketing.bucket_by_length(
        pairs.source_lengths[rows], pairs.target_lengths[rows], PADDED_TOKENS, PADDED_TOKENS
    )
    for micro_batch in micro_batches[world.rank :: world.size]:
        if stopped():
            return None
        batch = collate.to_device(collate.collate_pairs(pairs, rows[micro_batch]), device)
        for term in _terms(module, batch):
            _add(sums, term.name, term.weight * float(term.total), float(term.count))
    return sums


def _add(sums: Sums, name: str, total: float, count: float) -> None:
    old_total, old_count = sums.get(name, (0.0, 0.0))
    sums[name] = old_total + total, old_count + count


def _terms(module: ModelWithLoss, batch: Batch) -> Iterator[Term]:
    """Yield the terms of the objective; when memory is exhausted, those of both halves."""
    try:
        yield from module(batch)
        return
    except (MemoryError, RuntimeError) as error:
        if not memory.is_out_of_memory(error):
            raise
        message = memory.first_line(error)
    for half in split_batch(batch, message):
        yield from _terms(module, half)


def _heat_map(
    model: nn.Module, prepared: PreparedData, device: torch.device
) -> tuple[Tensor, list[str], list[str]] | None:
    """Return the attention that aligns the first validation pair; None when there is none."""
    if not hasattr(model, "attention"):
        return None
    batch = collate.to_device(collate.collate_pairs(prepared.valid, np.array([0])), device)
    try:
        attention = cast(Seq2Seq, model).attention(batch.source, batch.inputs)  # [1, T, S]
    except ConfigError:  # the model attends to no source token
        return None
    vocabulary = prepared.vocabulary
    rows = vocabulary.pieces_target(batch.labels[0].tolist())
    columns = vocabulary.pieces_source(batch.source[0].tolist())
    return attention[0].float().cpu(), rows, columns
