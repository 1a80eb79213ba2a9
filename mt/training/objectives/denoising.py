"""Denoising: restores text from its noised form (BART, Lewis et al. 2020).

A row of a monolingual corpus has the same text on both sides, marked by `<mask>` before its
source, which gets new noise at each step; a row of a parallel corpus is translated. So a run may
pre-train on text alone, or denoise while it learns to translate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mt.config.section import MAX_FACTOR, MAX_LENGTH, Variant
from mt.data import noising
from mt.errors import ConfigError
from mt.interfaces import Batch, Loss, Seq2Seq, Teacher, Term
from mt.special_tokens import END, FIRST_PIECE, MASK, PAD, UNK
from mt.training.losses import sequence_cross_entropy
from mt.vocabulary.vocabulary import Vocabulary


class Config(Variant):
    """What noise there is, and how much each part of the loss counts."""

    denoises: ClassVar[bool] = True

    kind: str = "denoising"
    mask: float = Field(0.3, ge=0, lt=1)
    """Share of a sentence's pieces that are covered by `<mask>`, one for each span of them."""
    span: float = Field(3.5, gt=0, le=50)
    """Mean length of a span in pieces, of a Poisson distribution; one of length 0 inserts."""
    delete: float = Field(0.0, ge=0, lt=1)
    """Share of the pieces that are deleted without a trace."""
    shuffle: float = Field(0.0, ge=0, le=MAX_LENGTH)
    """How many places a piece may move from its own."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of each label's probability spread over the vocabulary, in training only."""
    weight: float = Field(1.0, ge=0, le=MAX_FACTOR)
    """Of the mean loss over the tokens of monolingual rows."""
    translation_weight: float = Field(1.0, ge=0, le=MAX_FACTOR)
    """Of the mean loss over the tokens of parallel rows."""
    predict_weight: float = Field(0.0, ge=0, le=MAX_FACTOR)
    """Of masked-token prediction on the encoder, an auxiliary loss on all sources (BERT); it takes
    a second pass through the encoder. 0: none."""
    predict_share: float = Field(0.15, gt=0, le=1)
    """Share of the pieces that are masked and predicted there."""

    @model_validator(mode="after")
    def _learns(self) -> Config:
        if not self.weight and not self.translation_weight and not self.predict_weight:
            raise ValueError("weight, translation_weight and predict_weight are all 0")
        return self


class Denoising(nn.Module):
    """The losses `denoising`, `translation` and, if it has a weight, `predict`.

    In evaluation mode the noise is constant, labels are not smoothed and terms not weighted, so
    that the exponential of the mean is the perplexity.
    """

    seed: Tensor
    spans: Tensor

    def __init__(self, config: Config, model: nn.Module, pieces: int) -> None:
        super().__init__()
        self.config, self.model, self.pieces = config, model, pieces
        width = cast(Seq2Seq, model).output()[0].size(1)
        self.head = Head(width) if config.predict_weight else None
        # Tensors, so that what a CUDA graph has captured reads the seed of its own update.
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("spans", noising.poisson_lengths(config.span), persistent=False)

    def begin(self, seed: int) -> None:
        """Set the seed of the noise; the loop calls this before each update."""
        self.seed.fill_(seed)

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """Count the positions of each term."""
        alone = monolingual(batch)
        counts = {
            "denoising": (batch.target_lengths * alone).sum(),
            "translation": (batch.target_lengths * ~alone).sum(),
        }
        if self.head is not None and self.training:
            counts["predict"] = self._mask_tokens(batch)[1].sum()
        return counts

    def forward(self, batch: Batch) -> Loss:
        """Return the loss of one micro-batch."""
        model, config = cast(Seq2Seq, self.model), self.config
        alone = monolingual(batch)  # [B]
        noised = add_noise(batch, config, self.spans, self._seed())
        hidden = model.decode(batch.inputs, model.encode(noised.source))  # [B, T, D]
        smoothing = config.label_smoothing if self.training else 0.0
        weights = (config.weight, config.translation_weight) if self.training else (1.0, 1.0)
        parts = (("denoising", alone, weights[0]), ("translation", ~alone, weights[1]))
        terms = []
        for name, rows, weight in parts:
            labels = torch.where(rows[:, None], batch.labels, PAD)
            total = sequence_cross_entropy(hidden, *model.output(), labels, smoothing)
            terms.append(Term(name, total, (labels != PAD).sum(), weight))
        if self.head is not None and self.training:
            terms.append(self._predict(batch, self.head))
        return tuple(terms)

    def _predict(self, batch: Batch, head: Head) -> Term:
        """Return the loss of masked-token prediction on the encoder."""
        model = cast(Seq2Seq, self.model)
        source, predicted = self._mask_tokens(batch)
        hidden = head(model.encode(source).states)  # [B, S, D]
        labels = torch.where(predicted, _without_mark(batch).source, PAD)
        total = sequence_cross_entropy(hidden, *model.output(), labels, 0.0)
        return Term("predict", total, predicted.sum(), self.config.predict_weight)

    def _mask_tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return sources [B, S] with pieces masked, and which positions the model predicts."""
        plain = _without_mark(batch)
        text = (plain.source >= FIRST_PIECE) | (plain.source == UNK)
        pieces, share = (FIRST_PIECE, self.pieces), self.config.predict_share
        return noising.mask_tokens(plain.source, text, share, pieces, self._seed(), batch.rows)

    def _seed(self) -> Tensor:
        return self.seed if self.training else torch.zeros_like(self.seed)


class Head(nn.Module):
    """The layers between encoder and output in masked-token prediction, as in BERT."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.norm = nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, states: Tensor) -> Tensor:
        """[B, S, D] -> [B, S, D]."""
        return cast(Tensor, self.norm(nn.functional.gelu(self.inner(states))))


# ------------------------------------------------------------------------------ the rows


def monolingual(batch: Batch) -> Tensor:
    """Return which rows [B] are monolingual: their source begins with `<mask>`."""
    return batch.source[:, 0] == MASK


def _without_mark(batch: Batch) -> Batch:
    """Drop the mark of monolingual rows."""
    alone = monolingual(batch)
    moved = torch.cat((batch.source[:, 1:], torch.full_like(batch.source[:, :1], PAD)), 1)
    source = torch.where(alone[:, None], moved, batch.source)
    return replace(batch, source=source, source_lengths=batch.source_lengths - alone.long())


def add_noise(batch: Batch, config: Config, spans: Tensor, seed: Tensor) -> Batch:
    """Add noise to the sources of monolingual rows, and drop their mark.

    Control pieces before the text, such as a language tag, and the end stay in place.
    """
    alone, plain, rows = monolingual(batch), _without_mark(batch), batch.rows
    width = plain.source.size(1)
    place = torch.arange(width, device=rows.device)
    control = (plain.source > 3) & (plain.source < FIRST_PIECE)
    front = control.long().cumprod(1).sum(1)  # [B] control pieces at the beginning
    lengths = (plain.source_lengths - front - 1).clamp(min=0)
    text = plain.source.gather(1, (place + front[:, None]).clamp(max=width - 1))
    if config.shuffle:
        text = noising.local_shuffle(text, lengths, config.shuffle, seed, rows)
    if config.delete:
        text, lengths = noising.delete_tokens(text, lengths, config.delete, seed, rows)
    if config.mask:
        text, lengths = noising.infill_spans(text, lengths, config.mask, spans, seed, rows)
    ends = front + lengths
    source = text.gather(1, (place - front[:, None]).clamp(min=0))
    source = torch.where(place < front[:, None], plain.source, source)
    source = torch.where(place == ends[:, None], END, source)
    source = torch.where(place > ends[:, None], PAD, source)
    source = torch.where(alone[:, None], source, plain.source)
    lengths = torch.where(alone, ends + 1, plain.source_lengths)
    if source.device.type == "cpu":  # where shapes are free
        source = source[:, : max(1, int(lengths.max()))]
    return replace(batch, source=source, source_lengths=lengths)


def build(
    config: Config, model: nn.Module, vocabulary: Vocabulary, teacher: Teacher | None
) -> Denoising:
    """Build the objective; raise a ConfigError unless both sides have one vocabulary."""
    if not vocabulary.joint:
        what = "denoising reads and writes the same text, which needs one vocabulary for both sides"
        advice = "set vocabulary.joint: true, or vocabulary.path to a joint one"
        raise ConfigError("CONFIG", "objective.kind", what, advice)
    return Denoising(config, model, vocabulary.target_size)
