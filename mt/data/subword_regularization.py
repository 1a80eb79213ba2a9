"""On-the-fly subword regularisation: re-segments the encoded corpus each epoch.

The ids of a prepared corpus spell its words, so no text is stored. The segmentation of an epoch is
a function of (seed, epoch) and of the corpus.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mt.config.schema import SamplingConfig, SideSamplingConfig
from mt.data.corpus import SIDES, EncodedPairs
from mt.errors import ConfigError
from mt.vocabulary.subword_sampling import (
    BpeDropout,
    Ids,
    Pieces,
    SegmentationSampler,
    UnigramSampler,
    ranges,
)
from mt.vocabulary.vocabulary import Vocabulary

SEED_STREAM = 0xC0DE
"""Part of the seeds here, so that other generators draw other numbers."""
CHUNK_TOKENS = 1 << 19
"""Pieces that are re-segmented at a time, which bounds memory."""


class SubwordRegularizer:
    """Re-segments the words of pairs at random.

    A sentence that would have more than `max_length` ids, `</s>` included, stays as it is.

    Raises:
        ConfigError: the vocabulary is not of the kind that `sampling` needs.
    """

    def __init__(self, sampling: SamplingConfig, vocabulary: Vocabulary, max_length: int) -> None:
        self.max_length = max_length
        self.samplers: dict[str, tuple[Pieces, SegmentationSampler]] = {}
        for name in SIDES:
            side: SideSamplingConfig = getattr(sampling, name)
            if side.kind is None:
                continue
            cutter = vocabulary.source if name == "source" else vocabulary.target
            where, advice = f"vocabulary.sampling.{name}", "leave it out, or learn another one"
            if vocabulary.kind != "sentencepiece":
                what = f"the vocabulary ({vocabulary.kind}) has whole words only"
                raise ConfigError("CONFIG", where, what, advice)
            pieces = Pieces.read(cutter.content, getattr(cutter, "offset", 0))
            if pieces.kind != side.kind:
                what = f"is for a {side.kind} vocabulary, and this one is {pieces.kind}"
                raise ConfigError("CONFIG", where, what, advice)
            self.samplers[name] = pieces, _make_sampler(pieces, side)

    def __call__(self, pairs: EncodedPairs, *seed: int) -> EncodedPairs:
        """Re-segment the pairs by a seed; their order stays."""
        arrays: list[NDArray[np.integer]] = []
        for number, name in enumerate(SIDES, start=1):
            tokens, offsets = pairs.arrays(name)
            if name in self.samplers:
                random = np.random.Generator(np.random.PCG64([*seed, SEED_STREAM, number]))
                tokens, offsets = self._resegment(tokens, offsets, *self.samplers[name], random)
            arrays += [tokens, offsets]
        return EncodedPairs(*arrays)  # type: ignore[arg-type] # tokens and offsets in turn

    def _resegment(
        self, tokens: NDArray[np.unsignedinteger], offsets: Ids, pieces: Pieces,
        sampler: SegmentationSampler, random: np.random.Generator,
    ) -> tuple[NDArray[np.unsignedinteger], Ids]:  # fmt: skip
        """Re-segment one side, some sentences at a time."""
        parts, lengths = [tokens[:0]], [np.zeros(1, dtype=np.int64)]
        edges = np.searchsorted(offsets, np.arange(CHUNK_TOKENS, int(offsets[-1]), CHUNK_TOKENS))
        for rows in np.split(np.arange(len(offsets) - 1), np.unique(edges)):
            if len(rows):
                starts = offsets[rows[0] : rows[-1] + 2]
                plain = tokens[starts[0] : starts[-1]].astype(np.int64)
                ids, length = self._segment(plain, starts - starts[0], pieces, sampler, random)
                parts.append(ids.astype(tokens.dtype))
                lengths.append(length)
        return np.concatenate(parts), np.cumsum(np.concatenate(lengths))

    def _segment(
        self, plain: Ids, starts: Ids, pieces: Pieces, sampler: SegmentationSampler,
        random: np.random.Generator,
    ) -> tuple[Ids, Ids]:  # fmt: skip
        """Return the ids of sentences end to end, and how many each has."""
        symbols, words, sentences = pieces.spell(plain, starts)
        ids, counts = sampler(symbols, words, random)
        ends = np.append(0, np.cumsum(counts))[sentences]
        lengths = np.diff(ends)
        odd = np.append(0, np.cumsum(ids < 0))  # symbols that are no piece
        kept = (lengths > self.max_length) | (np.diff(odd[ends]) > 0)
        first = np.where(kept, len(ids) + starts[:-1], ends[:-1])
        lengths = np.where(kept, np.diff(starts), lengths)
        return np.concatenate((ids, plain))[ranges(first, lengths)], lengths

    def max_lengths(self, pairs: EncodedPairs) -> tuple[int, int]:
        """Return the most ids of each side that a pair can get."""
        return tuple(self._longest(pairs, name) for name in SIDES)  # type: ignore[return-value]

    def _longest(self, pairs: EncodedPairs, name: str) -> int:
        tokens, offsets = pairs.arrays(name)
        now = int(np.diff(offsets).max(initial=0))
        if name not in self.samplers:
            return now
        pieces, _ = self.samplers[name]
        lengths = np.diff(pieces.spelling[1])  # [V] symbols of each piece
        symbols = np.append(0, np.cumsum(lengths[tokens]))[offsets]
        return max(now, min(self.max_length, int(np.diff(symbols).max(initial=0))))


def _make_sampler(pieces: Pieces, side: SideSamplingConfig) -> SegmentationSampler:
    if side.alpha is None:
        return BpeDropout(pieces, side.dropout)
    return UnigramSampler(pieces, side.alpha, side.nbest)
