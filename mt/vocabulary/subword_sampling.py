"""Other ways to cut the same words into the same pieces, drawn at random: subword regularisation.

SentencePiece samples, too, but from a generator that cannot be seeded for each epoch, so that no
run could be resumed to the bit. Here draws come from a numpy generator, for all words at once.

Legend: N symbols (characters, end to end), W words, E ways to end a piece at a place of a word.
A piece without text of its own (the end, a tag, a byte) is one symbol, which no cut takes apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mt.special_tokens import END

Ids = NDArray[np.int64]
Segmentation = tuple[Ids, Ids]
"""The ids of the pieces of some words end to end, and [W] how many each word has."""
SPACE = "▁"
"""What stands for a space in SentencePiece, at the beginning of a word."""


# ------------------------------------------------------------------------------- pieces


@dataclass(frozen=True)
class Pieces:
    """The pieces of a SentencePiece model, by id, in symbols."""

    kind: str
    """`bpe`, `unigram`, or what else there is."""
    names: list[str]
    """[V] the text of each id; empty for those that are one symbol, whatever they say."""
    scores: NDArray[np.float64]
    """[V] logarithm of the probability of a unigram; of bpe, the larger the earlier the merge."""

    @classmethod
    def read(cls, content: bytes, offset: int) -> Pieces:
        """Of the bytes of a model; `offset` is what its ids are moved up by."""
        from sentencepiece import sentencepiece_model_pb2

        proto = sentencepiece_model_pb2.ModelProto.FromString(content)
        kind = proto.trainer_spec.ModelType.Name(proto.trainer_spec.model_type).lower()
        texts = [piece.piece if piece.type == piece.NORMAL else "" for piece in proto.pieces]
        scores = [0.0] * offset + [piece.score for piece in proto.pieces]
        return cls(kind, [""] * offset + texts, np.array(scores))

    @cached_property
    def symbols(self) -> dict[str, int]:
        """The symbol of each character; that of an id without text is their number plus the id."""
        return {c: i for i, c in enumerate(sorted(set("".join([*self.names, SPACE]))))}

    @cached_property
    def spelling(self) -> tuple[Ids, Ids]:
        """The symbols of all ids end to end, and [V + 1] where each begins."""
        known, first = self.symbols, len(self.symbols)
        spelled = [[known[c] for c in n] or [first + i] for i, n in enumerate(self.names)]
        ends = np.cumsum([0, *map(len, spelled)])
        return np.array([symbol for symbols in spelled for symbol in symbols]), ends

    @cached_property
    def alone(self) -> Ids:
        """[symbols] the id of each symbol as a piece of its own; -1 where there is none."""
        ids = {name: i for i, name in enumerate(self.names) if len(name) == 1}
        return np.array([ids.get(c, -1) for c in self.symbols] + list(range(len(self.names))))

    @cached_property
    def spans(self) -> bool:
        """Whether a piece may go on across a space: then a sentence is a word."""
        return any(SPACE in name[1:] for name in self.names)

    def spell(self, ids: NDArray[np.integer], starts: Ids) -> tuple[Ids, Ids, Ids]:
        """Sentences in symbols and words.

        Args:
            ids: of sentences end to end. starts: [sentences + 1] where each begins.

        Returns:
            The symbols [N]; where each word begins, and the last one ends [W + 1]; and the first
            word of each sentence, and of the one after the last.
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
    """start, start + 1, ... of so many each, end to end."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total)


class SegmentationSampler(Protocol):
    """Draws cuts of words."""

    def __call__(self, symbols: Ids, starts: Ids, random: np.random.Generator) -> Segmentation:
        """The pieces of each word; -1 stands for a symbol that is no piece."""


# ---------------------------------------------------------------------------------- BPE


class BpeDropout:
    """BPE-dropout (Provilkov et al. 2020, algorithm 1).

    A word begins as its characters. Of all merges that could be made each is left out with a
    probability, anew each time, and the first in rank of the others is made; when none is left,
    the word is done. The same merge at two places is two merges.
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
        """The pieces of each word."""
        count = len(starts) - 1
        pieces, word = self.first[symbols], np.repeat(np.arange(count), np.diff(starts))
        merged = np.full(len(pieces), -1)  # [N] what a piece and the next one become
        self._look_up(merged, pieces, word, np.arange(len(pieces) - 1))
        done: list[tuple[Ids, Ids]] = []
        while len(pieces):
            could = np.flatnonzero(merged >= 0)
            if self.dropout:
                could = could[random.random(len(could)) >= self.dropout]
            of = word[could]
            first = np.flatnonzero(np.diff(of, prepend=-1))  # where those of a word begin
            order = self.rank[merged[could]] * len(pieces) + could
            best = np.minimum.reduceat(order, first) % len(pieces) if len(first) else first
            stays = np.zeros(count, dtype=bool)
            stays[of[first]] = True
            kept = stays[word]
            done.append((pieces[~kept], word[~kept]))
            pieces[best] = merged[best]
            kept[best + 1] = False
            place = np.cumsum(kept)[best] - 1
            pieces, word, merged = pieces[kept], word[kept], merged[kept]
            self._look_up(merged, pieces, word, place)
            self._look_up(merged, pieces, word, place[place > 0] - 1)
        found, of = (np.concatenate([part[side] for part in done]) for side in (0, 1))
        found = found[np.argsort(of, kind="stable")]
        return np.where(found < self.size, found, -1), np.bincount(of, minlength=count)

    def _look_up(self, merged: Ids, pieces: Ids, word: Ids, at: Ids) -> None:
        """Set what the pieces at some places and the next ones become, -1 for nothing."""
        merged[at] = -1
        at = at[at + 1 < len(pieces)]
        at = at[word[at] == word[at + 1]]
        keys = pieces[at] * self.base + pieces[at + 1]
        found = np.searchsorted(self.keys, keys)
        found[found == len(self.keys)] = 0
        known = self.keys[found] == keys
        merged[at[known]] = self.merged[found[known]]


# ------------------------------------------------------------------------------ unigram


class _Trie:
    """All pieces, to find those that begin at many places at once."""

    def __init__(self, pieces: Pieces) -> None:
        symbols, where = pieces.spelling
        self.base = len(pieces.alone)
        after: dict[int, int] = {}  # node * base + symbol -> node; the root is 0
        ends: dict[int, int] = {}
        for i in range(len(pieces.names)):
            node = 0
            for symbol in symbols[where[i] : where[i + 1]].tolist():
                node = after.setdefault(node * self.base + symbol, len(after) + 1)
            ends[node] = i
        self.keys = np.array(sorted(after), dtype=np.int64)
        self.nodes = np.array([after[key] for key in self.keys.tolist()], dtype=np.int64)
        self.piece = np.array([ends.get(node, -1) for node in range(len(after) + 1)])

    def find(self, symbols: Ids, ends: Ids) -> tuple[Ids, Ids, Ids]:
        """Every piece within a word: where it begins, where the next one would, and its id.

        Args:
            symbols: [N]. ends: [N] where the word of each symbol ends.
        """
        at = np.arange(len(symbols))
        here, node = at, np.zeros(len(at), dtype=np.int64)
        found: list[tuple[Ids, Ids, Ids]] = []
        while len(at):
            keys = node * self.base + symbols[here]
            place = np.searchsorted(self.keys, keys)
            place[place == len(self.keys)] = 0
            known = self.keys[place] == keys
            at, here, node = at[known], here[known] + 1, self.nodes[place[known]]
            piece = self.piece[node]
            whole = piece >= 0
            found.append((at[whole], here[whole], piece[whole]))
            inside = here < ends[at]
            at, here, node = at[inside], here[inside], node[inside]
        begin, end, piece = (np.concatenate([part[i] for part in found]) for i in range(3))
        return begin, end, piece


class UnigramSampler:
    """Cuts drawn from a unigram model (Kudo 2018, section 3.1).

    Pieces do not go across words, so to cut a sentence is to cut each of its words, whatever the
    others are. The best cuts are those of a word, therefore, where the paper counts a sentence's.
    """

    def __init__(self, pieces: Pieces, alpha: float, nbest: int | None) -> None:
        self.alpha, self.nbest, self.trie = alpha, nbest, _Trie(pieces)
        self.scores = np.where([bool(name) for name in pieces.names], pieces.scores, 0.0)

    def __call__(self, symbols: Ids, starts: Ids, random: np.random.Generator) -> Segmentation:
        """The pieces of each word."""
        some, kind = _distinct(symbols, starts)
        lengths = np.diff(starts)[some]
        lattice = _Lattice(self.trie, self.scores, symbols[ranges(starts[some], lengths)], lengths)
        if self.nbest is None:
            return lattice.draw(self.alpha, kind, random)
        return lattice.draw_among(self.nbest, self.alpha, kind, random)


def _distinct(symbols: Ids, starts: Ids) -> tuple[Ids, Ids]:
    """A word of each kind [K], and of which kind each word is [W]."""
    text, ends = symbols.astype(np.int32).tobytes(), (4 * starts).tolist()
    known: dict[bytes, int] = {}
    kind = [known.setdefault(text[a:b], len(known)) for a, b in pairwise(ends)]
    return np.unique(np.array(kind), return_index=True)[1], np.array(kind)


class _Lattice:
    """All cuts of K words.

    A node is a place in a word, before its first symbol or after one of them. An edge is a piece
    between two of them. Edges are sorted by how many symbols stand before their end, then by the
    node that is their end: a group of edges ends at one node.
    """

    def __init__(self, trie: _Trie, scores: NDArray[np.float64], symbols: Ids, lengths: Ids):
        ends = np.cumsum(lengths)
        word = np.repeat(np.arange(len(lengths)), lengths)
        begin, end, piece = trie.find(symbols, ends[word])
        of = word[begin]
        depth = end - (ends - lengths)[of]
        order = np.lexsort((end, depth))
        self.depth, self.piece = depth[order], piece[order]
        self.begin, self.end = (begin + of)[order], (end + of)[order]  # one node more a word
        self.scores = scores[self.piece]
        self.nodes = len(symbols) + len(lengths)
        self.roots = ends - lengths + np.arange(len(lengths))
        self.leaves = self.roots + lengths
        self.first = np.flatnonzero(np.diff(self.end, prepend=-1))  # [groups]
        self.group = np.zeros(self.nodes, dtype=np.int64)
        self.group[self.end[self.first]] = np.arange(len(self.first))

    def layers(self) -> Iterator[tuple[slice, slice]]:
        """The edges, and the groups, that end after 1, 2, ... symbols."""
        edges = np.append(np.flatnonzero(np.diff(self.depth, prepend=0)), len(self.depth))
        groups = np.searchsorted(self.first, edges)
        for (a, b), (c, d) in zip(pairwise(edges.tolist()), pairwise(groups.tolist()), strict=True):
            yield slice(a, b), slice(c, d)

    def draw(self, alpha: float, kind: Ids, random: np.random.Generator) -> Segmentation:
        """Cuts of words [W] of these kinds: forward filtering, backward sampling."""
        total = np.full(self.nodes, -np.inf)  # logarithm of the sum over all ways to a node
        total[self.roots] = 0.0
        weights = alpha * self.scores
        for edges, groups in self.layers():
            ways = total[self.begin[edges]] + weights[edges]
            first = self.first[groups]
            total[self.end[first]] = np.logaddexp.reduceat(ways, first - edges.start)
        reached = np.isfinite(total[self.end])
        share = np.zeros(len(weights))
        share[reached] = np.exp((total[self.begin] + weights - total[self.end])[reached])
        chosen = _Chosen(share, self.first)
        word, node = np.arange(len(kind)), self.leaves[kind]
        drawn: list[tuple[Ids, Ids]] = []
        while len(word):
            edge = chosen(self.group[node], random)
            drawn.append((word, self.piece[edge]))
            node = self.begin[edge]
            on = node != self.roots[kind[word]]
            word, node = word[on], node[on]
        return _backwards(drawn, len(kind))

    def draw_among(
        self, nbest: int, alpha: float, kind: Ids, random: np.random.Generator
    ) -> Segmentation:
        """Cuts of words [W] of these kinds, among the best of each kind."""
        score = np.zeros(len(self.roots))  # [ways] of each way to a node, the first to the roots
        edge, before = np.full((2, len(score)), -1)  # [ways] its last edge, and the way before that
        start, count = np.zeros((2, self.nodes), dtype=np.int64)  # [nodes] its ways, best first
        start[self.roots], count[self.roots] = np.arange(len(self.roots)), 1
        for edges, _ in self.layers():
            begin = self.begin[edges]
            way = ranges(start[begin], count[begin])
            by = np.repeat(np.arange(edges.start, edges.stop), count[begin])
            sums, end = score[way] + self.scores[by], self.end[by]
            order = np.lexsort((-sums, end))
            first = np.flatnonzero(np.diff(end[order], prepend=-1))
            ways = np.diff(first, append=len(order))
            kept = order[np.arange(len(order)) - np.repeat(first, ways) < nbest]
            ended = end[order[first]]
            count[ended] = np.minimum(ways, nbest)
            start[ended] = len(score) + np.cumsum(count[ended]) - count[ended]
            score = np.concatenate((score, sums[kept]))
            edge, before = np.append(edge, by[kept]), np.append(before, way[kept])
        best, ways = start[self.leaves], count[self.leaves]  # [K]
        share = np.exp(alpha * (score[ranges(best, ways)] - np.repeat(score[best], ways)))
        first = np.cumsum(ways) - ways
        share /= np.repeat(np.add.reduceat(share, first), ways)
        way = best[kind] + _Chosen(share, first)(kind, random) - first[kind]
        word = np.arange(len(kind))
        drawn: list[tuple[Ids, Ids]] = []
        while len(word):
            drawn.append((word, self.piece[edge[way]]))
            way = before[way]
            on = edge[way] >= 0
            word, way = word[on], way[on]
        return _backwards(drawn, len(kind))


class _Chosen:
    """Draws from many distributions at once; their shares end to end, `first` where each begins."""

    def __init__(self, share: NDArray[np.float64], first: Ids) -> None:
        self.first, self.last = first, np.append(first[1:], len(share)) - 1
        sums = np.cumsum(share)
        before = np.append(0.0, sums)[first]
        number = np.repeat(np.arange(len(first)), self.last - first + 1)
        self.sums = number + np.minimum(sums - before[number], 1.0)
        self.sums[self.last] = np.arange(len(first)) + 1

    def __call__(self, number: Ids, random: np.random.Generator) -> Ids:
        """A place within the shares for each number of a distribution."""
        found = np.searchsorted(self.sums, number + random.random(len(number)), side="right")
        return np.minimum(found, self.last[number])


def _backwards(drawn: list[tuple[Ids, Ids]], count: int) -> Segmentation:
    """The pieces of `count` words from (words, their pieces), the last piece of a word first."""
    word, pieces = (np.concatenate([part[i] for part in reversed(drawn)]) for i in (0, 1))
    return pieces[np.argsort(word, kind="stable")], np.bincount(word, minlength=count)
