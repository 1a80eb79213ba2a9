"""Change some training pairs in each epoch, so that a model bears input unlike its training text.

The changes are those that mozilla's Firefox Translations train with, made here on the source side:
capitals, title case, typing errors, a missing end mark. Two more add to both sides what a model
must copy: an invented word or a placeholder. A translation stays as it is, so a model learns to
answer a shout in the usual case.

The ids of a prepared corpus spell its text, so none is stored. What changes is a function of
(seed, epoch) and of the corpus, as in `subword_regularization`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mt.config.schema import AugmentConfig
from mt.data.corpus import EncodedPairs
from mt.special_tokens import END, FIRST_PIECE, MASK, UNK
from mt.vocabulary.vocabulary import Vocabulary

SEED_STREAM = 0xA06
"""Part of the seeds here, so that other generators draw other numbers."""
ROWS = 1 << 14
"""Pairs that are changed at a time, which bounds memory."""
END_MARKS = ".!?。！？…।؟۔։ "
"""What a source loses that loses its end mark."""
PLACEHOLDERS = (
    "{{{0}}}", "<{1}>", "</{1}>", "%{1}", "__{1}__", "[{0}]", "${{{1}}}", "https://{1}.org/{2}",
    "www.{1}.com", "{1}@{2}.net", "#{1}", "@{1}",
)  # fmt: skip
"""Forms of what is copied: {0} is a number, {1} and {2} are invented words."""
_LONGEST_WORD, _MOST_WORDS = 5, 6


class Augmenter:
    """Changes pairs at random; a pair that would be longer than `max_length` stays as it is."""

    def __init__(self, config: AugmentConfig, vocabulary: Vocabulary, max_length: int) -> None:
        self.config, self.vocabulary, self.max_length = config, vocabulary, max_length

    def __call__(self, pairs: EncodedPairs, *seed: int) -> EncodedPairs:
        """Change some of the pairs by a seed; their order stays."""
        draws = np.random.Generator(np.random.PCG64([*seed, SEED_STREAM])).random((len(pairs), 4))
        plan = self.config
        case = np.where(draws[:, 0] < plan.upper_case, 1, 0)
        case[draws[:, 0] >= 1 - plan.title_case] = 2
        wanted = (plan.typos, plan.no_end_mark)
        typos, bare = (draws[:, i] < share for i, share in enumerate(wanted, start=1))
        copied = np.where(draws[:, 3] < plan.noise, 1, 0)
        copied[draws[:, 3] >= 1 - plan.placeholders] = 2
        some = np.flatnonzero((case > 0) | typos | bare | (copied > 0))
        new: dict[str, dict[int, list[int]]] = {"source": {}, "target": {}}
        for rows in np.split(some, range(ROWS, len(some), ROWS)):
            flags = zip(*(each[rows].tolist() for each in (case, typos, bare, copied)), strict=True)
            by_row: dict[int, Any] = dict(zip(rows.tolist(), flags, strict=True))
            self._change(pairs, by_row, seed, new)
        arrays: list[NDArray[np.integer]] = []
        for side, changed in new.items():
            arrays += replace_rows(*pairs.arrays(side), changed)
        return EncodedPairs(*arrays)  # type: ignore[arg-type] # tokens and offsets in turn

    def max_lengths(self, pairs: EncodedPairs) -> tuple[int, int]:
        """Return the most ids of each side that a pair can get."""
        target = int(pairs.target_lengths.max(initial=0))
        adds = self.config.noise or self.config.placeholders
        return self.max_length, self.max_length if adds else target

    def _change(
        self, pairs: EncodedPairs, flags: dict[int, tuple[int, bool, bool, int]],
        seed: Sequence[int], new: dict[str, dict[int, list[int]]],
    ) -> None:  # fmt: skip
        """Add the new ids of the rows in `flags` to `new`."""
        fronts, sources = self._read(pairs, list(flags))
        targets = {row: "" for row, flag in flags.items() if flag[3] and row in sources}
        if targets:
            ids = [pairs.target(row).tolist() for row in targets]
            targets = dict(zip(targets, self.vocabulary.decode_target(ids), strict=True))
        texts: dict[int, str] = {}
        for row, source in sources.items():
            draw = random.Random(f"{seed} {row}")
            case, typos, bare, copied = flags[row]
            text = change_source(source, case, typos, bare, draw)
            if copied == 1:
                text = targets[row] = invent_words(source, draw)
            elif copied == 2:
                text, targets[row] = add_placeholder(text, targets[row], draw)
            if text != source and text.strip():
                texts[row] = text
        encoded = zip(texts, self.vocabulary.encode_source([*texts.values()]), strict=True)
        changed = {row: [*fronts[row], *ids, END] for row, ids in encoded}
        copies = [row for row in texts if row in targets]
        ids = self.vocabulary.encode_target([targets[row] for row in copies])
        others = {row: [*each, END] for row, each in zip(copies, ids, strict=True)}
        for row, own in changed.items():
            other = others.get(row)
            if max(len(own), len(other or ())) <= self.max_length and UNK not in (other or ()):
                new["source"][row] = own
                if other is not None:
                    new["target"][row] = other

    def _read(
        self, pairs: EncodedPairs, rows: list[int]
    ) -> tuple[dict[int, list[int]], dict[int, str]]:
        """Return the control pieces before each source, and its text."""
        fronts: dict[int, list[int]] = {}
        rest: dict[int, list[int]] = {}
        for row in rows:
            ids = pairs.source(row).tolist()[:-1]
            first = next((i for i, id in enumerate(ids) if id >= FIRST_PIECE), len(ids))
            if MASK not in ids and UNK not in ids:  # no text, or not the whole of it
                fronts[row], rest[row] = ids[:first], ids[first:]
        texts = self.vocabulary.source.decode([*rest.values()])
        return fronts, dict(zip(rest, texts, strict=True))


def change_source(text: str, case: int, typos: bool, bare: bool, draw: random.Random) -> str:
    """Return a source with capitals (1), in title case (2), with typos, or without its end mark."""
    if bare:
        text = text.rstrip(END_MARKS) or text
    if typos:
        text = make_typos(text, draw)
    if case == 1:
        return text.upper()
    return title_case(text) if case == 2 else text


def title_case(text: str) -> str:
    """Return a text with a capital at the beginning of each word."""
    return " ".join(word[:1].upper() + word[1:] for word in text.split(" "))


def make_typos(text: str, draw: random.Random) -> str:
    """Return a text with an error of typing in about one word of six, and in at least one.

    Two letters change places, one is missing or twice there, or a space is missing. Words that
    have no upper and lower case are left alone.
    """
    words = text.split(" ")
    able = [i for i, word in enumerate(words) if len(word) > 3 and word.lower() != word.upper()]
    for index in draw.sample(able, min(len(able), 1 + len(able) // 6)):
        word = words[index]
        at = draw.randrange(len(word) - 1)
        change: Callable[[], str] = draw.choice((
            lambda word=word, at=at: word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            lambda word=word, at=at: word[:at] + word[at + 1 :],
            lambda word=word, at=at: word[:at] + word[at] + word[at:],
            lambda word=word: word + "\0",
        ))  # fmt: skip
        words[index] = change()
    return " ".join(words).replace("\0 ", "").replace("\0", "")


def invent_words(text: str, draw: random.Random) -> str:
    """Return words of letters that the text has, each of 2 to 5."""
    letters = sorted({letter for letter in text if letter.isalnum()}) or ["a"]
    count = draw.randint(1, _MOST_WORDS)
    return " ".join(
        "".join(draw.choices(letters, k=draw.randint(2, _LONGEST_WORD))) for _ in range(count)
    )


def add_placeholder(source: str, target: str, draw: random.Random) -> tuple[str, str]:
    """Return both sides with the same placeholder before or after them."""
    words = ("".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(2))
    mark = draw.choice(PLACEHOLDERS).format(draw.randint(0, 99), *words)
    if draw.random() < 0.5:
        return f"{mark} {source}", f"{mark} {target}"
    return f"{source} {mark}", f"{target} {mark}"


def replace_rows(
    tokens: NDArray[np.unsignedinteger], offsets: NDArray[np.int64], new: dict[int, list[int]]
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]:
    """Return the tokens and offsets of a side in which some rows have new ids."""
    parts, lengths, end = [tokens[:0]], np.diff(offsets), 0
    for row in sorted(new):
        parts += [tokens[end : offsets[row]], np.array(new[row], dtype=tokens.dtype)]
        lengths[row], end = len(new[row]), int(offsets[row + 1])
    parts.append(tokens[end : offsets[-1]])
    return np.concatenate(parts), np.append(0, np.cumsum(lengths))
