"""Pairs whose words do not translate each other, by IBM Model 1 (Brown et al. 1993, section 4.1).

A lexicon of each direction is learned from up to 100,000 pairs of the corpus itself. The value of a
direction is the mean over its words of log(p(word | other side) / p(word)): by how many nats the
other side makes a word likelier. That of a pair is the mean of both. It is mostly below 0 for sides
that have nothing to do with each other, and 1 to 4 for translations. At -0.3 it finds 96 % of
shuffled English-German pairs and drops 0.2 % of sound ones that it did not learn from (Tatoeba and
Multi30k, 90,000 pairs learned from); of those that it did 0.01 %.

OpusFilter's `WordAlignFilter` takes the score of eflomal, which has no threshold of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import regex
from numpy.typing import NDArray
from pydantic import Field

from mt.config.schema import FilterConfig
from mt.data.cleaning import Context, Filter, Texts, Value
from mt.data.corpus import EncodedPairs
from mt.data.ibm_model1 import Ids, learn_lexicon, link_keys
from mt.data.scripts import writes_spaces
from mt.special_tokens import END, FIRST_PIECE

_WORD, _CHARACTER = regex.compile(r"[\p{L}\p{M}\p{N}]+"), regex.compile(r"[\p{L}\p{N}]\p{M}*")
WORDS, FEWEST = 50_000, 6
"""Most words of a side, and how often a word occurs in the sample at least."""
LINKS = 12_000_000
"""Most links to learn from, about 12 bytes each."""
LEAST = 1e-5
"""Entries of the lexicon below this count as 0; they are most of it."""
CHANCE = 0.1
"""Share of a word that does not come from the other side: no word counts less than log 0.1."""
FEW = 3
"""A pair with fewer known words on a side is kept."""


class Config(FilterConfig):
    """The least value."""

    kind: Literal["alignment"] = "alignment"
    least: float = Field(-0.3, ge=-10, le=10)
    """Least value of a pair, in nats a word."""

    learns: ClassVar[bool] = True


class _Words:
    """The frequent words of a side, as ids; characters where no spaces are written."""

    def __init__(self, texts: Sequence[str], pattern: regex.Pattern[str]) -> None:
        self.pattern = pattern
        counts = Counter(word for text in texts for word in self.split(text))
        frequent = [(w, n) for w, n in counts.most_common(WORDS) if n >= FEWEST]
        self.ids = {word: FIRST_PIECE + i for i, (word, _) in enumerate(frequent)}
        self.size = FIRST_PIECE + len(frequent)
        occurrences = np.array([1.0] * FIRST_PIECE + [float(n) for _, n in frequent])
        self.probability = occurrences / occurrences[FIRST_PIECE:].sum()  # [size]

    def split(self, text: str) -> list[str]:
        found: list[str] = self.pattern.findall(text.lower())
        return found

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], Ids]:
        """Return the ids of texts end to end, each ending in `</s>`, and offsets."""
        rows = [[*(self.ids[w] for w in self.split(text) if w in self.ids), END] for text in texts]
        tokens = np.array([number for row in rows for number in row], np.uint32)
        return tokens, np.cumsum([0, *map(len, rows)], dtype=np.int64)


class _Direction:
    """The lexicon of one direction."""

    def __init__(self, pairs: EncodedPairs, words: _Words) -> None:
        lexicon = learn_lexicon(pairs, np.arange(len(pairs)), words.size)
        likely = lexicon.probability >= LEAST
        self.words, self.probability = words, lexicon.probability[likely]
        self.keys = lexicon.source[likely] * words.size + lexicon.target[likely]

    def values(self, pairs: EncodedPairs) -> NDArray[np.float64]:
        """Return the value of each pair; 0 for one without known words."""
        keys, widths = link_keys(pairs, np.arange(len(pairs)), self.words.size)
        if not len(keys) or not len(self.keys):
            return np.zeros(len(pairs))
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        linked = np.where(self.keys[place] == keys, self.probability[place], 0)  # [P]
        given = np.add.reduceat(linked, np.cumsum(widths) - widths) / widths  # [positions]
        tokens, _ = pairs.arrays("target")
        alone = self.words.probability[tokens[tokens != END]]  # [positions]
        gains = np.log((1 - CHANCE) * given / alone + CHANCE)
        counts = pairs.target_lengths - 1
        pair = np.repeat(np.arange(len(pairs)), counts)
        means: NDArray[np.float64] = np.bincount(pair, gains, len(pairs)) / np.maximum(counts, 1)
        return means


class _Alignment:
    """The lexicons of both directions."""

    def __init__(self, config: Config, context: Context) -> None:
        self.config = config
        self.patterns = [_WORD if writes_spaces(c) else _CHARACTER for c in context.languages]

    def learn(self, pairs: Sequence[tuple[str, str]]) -> None:
        lengths = [
            np.array([len(pattern.findall(pair[side])) + 1 for pair in pairs], np.int64)
            for side, pattern in enumerate(self.patterns)
        ]
        # Thinned before words are counted: a word that is not learned from would link to nothing.
        pairs = pairs[:: max(1, -(-int(np.dot(*lengths)) // LINKS))]
        texts = [[pair[side] for pair in pairs] for side in (0, 1)]
        self.sides = [_Words(t, p) for t, p in zip(texts, self.patterns, strict=True)]
        forward, backward = self._encode(*texts)
        self.directions = _Direction(forward, self.sides[1]), _Direction(backward, self.sides[0])

    def _encode(self, sources: Texts, targets: Texts) -> tuple[EncodedPairs, EncodedPairs]:
        """Return the pairs, and the pairs with their sides exchanged."""
        source, target = self.sides[0].encode(sources), self.sides[1].encode(targets)
        return EncodedPairs(*source, *target), EncodedPairs(*target, *source)

    def check(self, sources: Texts, targets: Texts) -> list[Value | None]:
        if not sources:
            return []
        forward, backward = self._encode(sources, targets)
        values = (self.directions[0].values(forward) + self.directions[1].values(backward)) / 2
        known = np.minimum(forward.source_lengths, forward.target_lengths) > FEW
        bad = known & (values < self.config.least)
        each = zip(bad.tolist(), values.tolist(), strict=True)
        return [round(value, 3) if is_bad else None for is_bad, value in each]


def build(config: Config, context: Context) -> Filter:
    """Return the filter, which learns before it checks."""
    return _Alignment(config, context)
