"""Subword regularisation: sample other segmentations of the same words into the same pieces.

SentencePiece samples, too, but its generator cannot be seeded per epoch, so no run could resume
bit-exactly. Here draws come from a numpy generator, for all words at once.

Legend: N symbols (characters, concatenated), W words, V ids, K distinct words.
A piece without text of its own (`</s>`, a tag, a byte) is one symbol and is never split.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain, pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mt.special_tokens import END

Ids = NDArray[np.int64]
Segmentation = tuple[Ids, Ids]
"""The ids of the pieces of some words, concatenated, and the number of pieces of each word [W]."""
SPACE = "▁"
"""SentencePiece's mark of a space, at the beginning of a word."""
NBEST = 64
"""Segmentations of a word to sample among by default (Kudo 2018, section 4.2: l = 64)."""
CACHED_WORDS = 1 << 18
"""Distinct words whose segmentations are kept; about 1 kB each."""


# ------------------------------------------------------------------------------- pieces


@dataclass(frozen=True)
class Pieces:
    """The pieces of a SentencePiece model, by id, in symbols."""

    kind: str
    """`bpe`, `unigram`, or another type of SentencePiece."""
    names: list[str]
    """[V] the text of each id; empty for special pieces and bytes, which are one symbol."""
    scores: NDArray[np.float64]
    """[V] log-probability of a unigram; for bpe, the larger the earlier the merge."""

    @classmethod
    def read(cls, content: bytes, offset: int) -> Pieces:
        """Read a serialised model; `offset` is added to its ids."""
        from sentencepiece import sentencepiece_model_pb2

        proto = sentencepiece_model_pb2.ModelProto.FromString(content)
        kind = proto.trainer_spec.ModelType.Name(proto.trainer_spec.model_type).lower()
        texts = [piece.piece if piece.type == piece.NORMAL else "" for piece in proto.pieces]
        scores = [0.0] * offset + [piece.score for piece in proto.pieces]
        return cls(kind, [""] * offset + texts, np.array(scores))

    @cached_property
    def symbols(self) -> dict[str, int]:
        """The symbol of each character; an id without text has their number plus the id."""
        return {c: i for i, c in enumerate(sorted(set("".join([*self.names, SPACE]))))}

    @cached_property
    def spelling(self) -> tuple[Ids, Ids]:
        """The symbols of all ids, concatenated, and the start of each id [V + 1]."""
        number, first = self.symbols, len(self.symbols)
        spelled = [[number[c] for c in name] or [first + i] for i, name in enumerate(self.names)]
        ends = np.cumsum([0, *map(len, spelled)])
        return np.array([symbol for symbols in spelled for symbol in symbols]), ends

    @cached_property
    def alone(self) -> Ids:
        """[symbols] the id of each symbol as a piece of its own; -1 if there is none."""
        ids = {name: i for i, name in enumerate(self.names) if len(name) == 1}
        return np.array([ids.get(c, -1) for c in self.symbols] + list(range(len(self.names))))

    @cached_property
    def spans(self) -> bool:
        """Whether a piece may contain a space; then a whole sentence counts as one word."""
        return any(SPACE in name[1:] for name in self.names)

    def spell(self, ids: NDArray[np.integer], starts: Ids) -> tuple[Ids, Ids, Ids]:
        """Split concatenated sentences, with their starts [sentences + 1], into symbols and words.

        Returns:
            The symbols [N]; the start of each word, and N [W + 1]; the first word of each
            sentence, and W [sentences + 1].
        """
        symbols, where = self.spelling
        first, lengths = where[ids], where[ids + 1] - where[ids]
        ends = np.concatenate(([0], np.cumsum(lengths)))
        text = symbols[ranges(first, lengths)]
        begins = np.zeros(len(text), dtype=bool)
        begins[ends[starts[:-1]]] = True
        if not self.spans:
            begins |= text == self.symbols[SPACE]
            begins |= text == len(self.symbols) + END
        words = np.flatnonzero(begins)
        sentences = np.searchsorted(words, ends[starts])
        return text, np.append(words, len(text)), sentences


def ranges(starts: Ids, lengths: Ids) -> Ids:
    """Concatenate the ranges start, start + 1, ... of these lengths."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total)


class SegmentationSampler(Protocol):
    """Samples segmentations of words."""

    def __call__(self, symbols: Ids, starts: Ids, random: np.random.Generator) -> Segmentation:
        """The pieces of each word; -1 marks a symbol that is no piece."""


# ---------------------------------------------------------------------------------- BPE


class BpeDropout:
    """BPE-dropout (Provilkov et al. 2020, algorithm 1).

    A word begins as its characters. In each round every possible merge is left out with a fixed
    probability, and the others' first in rank is applied. A word without one is done. The same
    merge at two places counts as two merges.
    """

    def __init__(self, pieces: Pieces, dropout: float) -> None:
        self.dropout, self.size = dropout, len(pieces.names)
        # A character that is no piece has a number above all ids, so that it can be merged away.
        numbers = {c: self.size + i for i, c in enumerate(pieces.symbols)}
        numbers |= {name: i for i, name in enumerate(pieces.names) if name}
        self.first = np.where(
            pieces.alone >= 0, pieces.alone, self.size + np.arange(len(pieces.alone))
        )
        self.base = self.size + len(pieces.symbols)
        merges = {
            numbers[name[:i]] * self.base + numbers[name[i:]]: numbers[name]
            for name in pieces.names
            for i in range(1, len(name))
            if name[:i] in numbers and name[i:] in numbers
        }
        self.keys = np.array(sorted(merges), dtype=np.int64)
        self.merged = np.array([merges[key] for key in self.keys.tolist()], dtype=np.int64)
        self.rank = np.unique(-pieces.scores, return_inverse=True)[1]

    def __call__(self, symbols: Ids, starts: Ids, random: np.random.Generator) -> Segmentation:
        """The pieces of each word; -1 marks a symbol that is no piece."""
        count = len(starts) - 1
        pieces, word = self.first[symbols], np.repeat(np.arange(count), np.diff(starts))
        merged = np.full(len(pieces), -1)  # [N] the merge of a piece and the next one
        self._look_up(merged, pieces, word, np.arange(len(pieces) - 1))
        done: list[tuple[Ids, Ids]] = []
        while len(pieces):
            possible = np.flatnonzero(merged >= 0)
            if self.dropout:
                possible = possible[random.random(len(possible)) >= self.dropout]
            owner = word[possible]
            first = np.flatnonzero(np.diff(owner, prepend=-1))  # the first merge of each word
            order = self.rank[merged[possible]] * len(pieces) + possible
            best = np.minimum.reduceat(order, first) % len(pieces) if len(first) else first
            unfinished = np.zeros(count, dtype=bool)
            unfinished[owner[first]] = True
            kept = unfinished[word]
            done.append((pieces[~kept], word[~kept]))
            pieces[best] = merged[best]
            kept[best + 1] = False
            place = np.cumsum(kept)[best] - 1
            pieces, word, merged = pieces[kept], word[kept], merged[kept]
            self._look_up(merged, pieces, word, place)
            self._look_up(merged, pieces, word, place[place > 0] - 1)
        ids, owner = (np.concatenate([part[side] for part in done]) for side in (0, 1))
        ids = ids[np.argsort(owner, kind="stable")]
        return np.where(ids < self.size, ids, -1), np.bincount(owner, minlength=count)

    def _look_up(self, merged: Ids, pieces: Ids, word: Ids, at: Ids) -> None:
        """Set the merges of the pieces at some places with the next ones; -1 for none."""
        merged[at] = -1
        at = at[at + 1 < len(pieces)]
        at = at[word[at] == word[at + 1]]
        keys = pieces[at] * self.base + pieces[at + 1]
        index = np.searchsorted(self.keys, keys)
        index[index == len(self.keys)] = 0
        exists = self.keys[index] == keys
        merged[at[exists]] = self.merged[index[exists]]


# ------------------------------------------------------------------------------ unigram


class UnigramSampler:
    """Samples among the n best segmentations of a unigram model (Kudo 2018, section 3.2).

    A segmentation is drawn in proportion to its probability to the power of alpha. Pieces do not
    cross words, so each word is sampled independently; the paper ranks whole sentences.
    """

    def __init__(self, pieces: Pieces, alpha: float, nbest: int | None) -> None:
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2

        self.alpha, self.nbest, self.unknown = alpha, nbest or NBEST, len(pieces.names)
        self.scores = np.where([bool(name) for name in pieces.names], pieces.scores, 0.0)
        # The same model over symbols, so that special pieces and bytes are text, too.
        symbols, starts = pieces.spelling
        text = _to_text(symbols)
        proto = sentencepiece_model_pb2.ModelProto()
        proto.trainer_spec.model_type = proto.trainer_spec.UNIGRAM
        spec = proto.normalizer_spec
        spec.add_dummy_prefix = spec.remove_extra_whitespaces = spec.escape_whitespaces = False
        for (a, b), score in zip(pairwise(starts.tolist()), self.scores.tolist(), strict=True):
            proto.pieces.add(piece=text[a:b], score=score)
        proto.pieces.add(piece="<unk>", type=proto.SentencePiece.UNKNOWN)
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        self.segmentations = lru_cache(CACHED_WORDS)(self._best_segmentations)

    def __call__(self, symbols: Ids, starts: Ids, random: np.random.Generator) -> Segmentation:
        """The pieces of each word; -1 marks a word that has no segmentation into pieces."""
        text = _to_text(symbols)
        index: dict[str, int] = {}  # of each distinct word
        word = np.array([
            index.setdefault(text[a:b], len(index)) for a, b in pairwise(starts.tolist())
        ])  # fmt: skip
        parts = zip(*map(self.segmentations, index), strict=True)
        ids, lengths, shares, counts = map(np.concatenate, parts)
        # [segmentations] sums that rise by 1 over those of each distinct word
        sums = np.repeat(np.arange(len(counts)), counts) + shares
        chosen = np.searchsorted(sums, word + random.random(len(word)), side="right")
        chosen = np.minimum(chosen, np.cumsum(counts)[word] - 1)  # a sum may round up
        first = np.cumsum(lengths) - lengths
        return ids[ranges(first[chosen], lengths[chosen])], lengths[chosen]

    def _best_segmentations(self, word: str) -> tuple[Ids, Ids, NDArray[np.float64], Ids]:
        """The best segmentations of a word, by falling probability.

        Returns:
            Their ids, concatenated; the length of each; the cumulative probability of each; and
            their number, [1].
        """
        every = self.processor.nbest_encode(word, nbest_size=self.nbest, out_type=int)
        segmentations = [ids for ids in every if self.unknown not in ids] or [[-1]]
        ids = np.array(list(chain.from_iterable(segmentations)))
        lengths = np.array([len(each) for each in segmentations])
        scores = np.add.reduceat(self.scores[ids], np.cumsum(lengths) - lengths)
        sums = np.cumsum(np.exp(self.alpha * (scores - scores.max())))
        return ids, lengths, sums / sums[-1], np.array([len(lengths)])


def _to_text(symbols: Ids) -> str:
    """One character per symbol, beyond those that SentencePiece treats in a special way."""
    return (symbols + 0x10000).astype("<u4").tobytes().decode("utf-32-le")
