"""On-the-fly subword regularisation: re-segments the encoded corpus each epoch.

The ids of a prepared corpus spell its words, so nothing else is kept. The segmentation of an
epoch is a function of (seed, epoch) and of the corpus.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

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
"""Part of the seeds of what is drawn here, so that nothing else draws the same."""
CHUNK_TOKENS = 1 << 19
"""About how many pieces are cut at a time; memory goes with it."""


class SubwordRegularizer:
    """Cuts the words of pairs in other ways, drawn at random.

    Args:
        sampling: how, for each side.
        known: the vocabulary that cut them before.
        max_length: most ids of a side, `</s>` included. A sentence that would be longer stays as
            it was in that epoch.

    Raises:
        ConfigError: the vocabulary is not of the kind that is to be drawn from.
    """

    def __init__(self, sampling: SamplingConfig, known: Vocabulary, max_length: int) -> None:
        self.max_length = max_length
        self.cuts: dict[str, tuple[Pieces, SegmentationSampler]] = {}
        for name in SIDES:
            side: SideSamplingConfig = getattr(sampling, name)
            if side.kind is None:
                continue
            cutter = known.source if name == "source" else known.target
            where, advice = f"vocabulary.sampling.{name}", "leave it out, or learn another one"
            if known.kind != "sentencepiece":
                what = f"the vocabulary ({known.kind}) has whole words only"
                raise ConfigError("CONFIG", where, what, advice)
            pieces = Pieces.read(cutter.content, getattr(cutter, "offset", 0))
            if pieces.kind != side.kind:
                what = f"is for a {side.kind} vocabulary, and this one is {pieces.kind}"
                raise ConfigError("CONFIG", where, what, advice)
            self.cuts[name] = pieces, _make_sampler(pieces, side)

    def __call__(self, pairs: EncodedPairs, *seed: int) -> EncodedPairs:
        """The same pairs in the same order; `seed` decides how they are cut."""
        arrays: list[NDArray[np.integer]] = []
        for number, name in enumerate(SIDES, start=1):
            tokens, offsets = pairs.arrays(name)
            if name in self.cuts:
                random = np.random.Generator(np.random.PCG64([*seed, SEED_STREAM, number]))
                tokens, offsets = self._cut(tokens, offsets, *self.cuts[name], random)
            arrays += [tokens, offsets]
        return EncodedPairs(*arrays)  # type: ignore[arg-type] # tokens and offsets in turn

    def _cut(
        self, tokens: NDArray[np.unsignedinteger], offsets: Ids, pieces: Pieces,
        cut: SegmentationSampler, random: np.random.Generator,
    ) -> tuple[NDArray[np.unsignedinteger], Ids]:  # fmt: skip
        """One side, some sentences at a time."""
        parts, lengths = [tokens[:0]], [np.zeros(1, dtype=np.int64)]
        edges = np.searchsorted(offsets, np.arange(CHUNK_TOKENS, int(offsets[-1]), CHUNK_TOKENS))
        for rows in np.split(np.arange(len(offsets) - 1), np.unique(edges)):
            if len(rows):
                starts = offsets[rows[0] : rows[-1] + 2]
                plain = tokens[starts[0] : starts[-1]].astype(np.int64)
                drawn, length = self._drawn(plain, starts - starts[0], pieces, cut, random)
                parts.append(drawn.astype(tokens.dtype))
                lengths.append(length)
        return np.concatenate(parts), np.cumsum(np.concatenate(lengths))

    def _drawn(
        self,
        plain: Ids,
        starts: Ids,
        pieces: Pieces,
        cut: SegmentationSampler,
        random: np.random.Generator,
    ) -> tuple[Ids, Ids]:
        """The ids of sentences end to end, and how many each has."""
        symbols, words, sentences = pieces.spell(plain, starts)
        ids, counts = cut(symbols, words, random)
        ends = np.append(0, np.cumsum(counts))[sentences]
        lengths = np.diff(ends)
        odd = np.append(0, np.cumsum(ids < 0))  # symbols that are no piece
        kept = (lengths > self.max_length) | (np.diff(odd[ends]) > 0)
        first = np.where(kept, len(ids) + starts[:-1], ends[:-1])
        lengths = np.where(kept, np.diff(starts), lengths)
        return np.concatenate((ids, plain))[ranges(first, lengths)], lengths

    def max_lengths(self, pairs: EncodedPairs) -> tuple[int, int]:
        """The most ids of each side that a pair can come to have."""
        return tuple(self._longest(pairs, name) for name in SIDES)  # type: ignore[return-value]

    def _longest(self, pairs: EncodedPairs, name: str) -> int:
        tokens, offsets = pairs.arrays(name)
        now = int(np.diff(offsets).max(initial=0))
        if name not in self.cuts:
            return now
        pieces, _ = self.cuts[name]
        lengths = np.diff(pieces.spelling[1])  # [V] symbols of each piece
        symbols = np.append(0, np.cumsum(lengths[tokens]))[offsets]
        return max(now, min(self.max_length, int(np.diff(symbols).max(initial=0))))


def _make_sampler(pieces: Pieces, side: SideSamplingConfig) -> SegmentationSampler:
    if side.alpha is None:
        return BpeDropout(pieces, side.dropout)
    return UnigramSampler(pieces, side.alpha, side.nbest)


class EpochCorpora:
    """A corpus as each epoch sees it; the next epoch's is drawn while one is trained on.

    Args:
        redraw: what cuts its words.
        corpus: as it was prepared.
        seed: what is drawn follows from it, the epoch and the corpus alone.
    """

    def __init__(self, redraw: SubwordRegularizer, corpus: EncodedPairs, seed: int) -> None:
        self.redraw, self.corpus, self.seed = redraw, corpus, seed
        self.known: dict[int, Future[EncodedPairs]] = {}

    def __call__(self, epoch: int) -> EncodedPairs:
        """The pairs of an epoch."""
        if epoch not in self.known:
            self.known = {epoch: self._begun(epoch)}
        return self.known[epoch].result()

    def start_epoch(self, epoch: int) -> EncodedPairs:
        """The pairs of an epoch that is trained on now; those of the next one are begun."""
        pairs = self(epoch)
        self.known = {epoch + 1: self._begun(epoch + 1)}
        return pairs

    def _begun(self, epoch: int) -> Future[EncodedPairs]:
        thread = ThreadPoolExecutor(1)
        future = thread.submit(self.redraw, self.corpus, self.seed, epoch)
        thread.shutdown(wait=False)  # it ends when that is done
        return future
