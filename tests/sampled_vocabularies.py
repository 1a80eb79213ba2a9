"""Small vocabularies and their words for the tests of subword sampling."""

from __future__ import annotations

import numpy as np

from mt.config.schema import Languages, VocabularyConfig
from mt.data.corpus import EncodedPairs
from mt.special_tokens import END
from mt.vocabulary.learn import learn_vocabulary

WORDS = "lower lowest newer newest wider widest slowly slower new low over under water winter"

LINES = [
    *(f"The {a} {b} is  {b}er than {c}, {a}!" for a in WORDS.split() for b, c in ["ab", "cd"]),
    "Übergrößenträger naïve 東京 ☃", "a", "  two spaces  ", WORDS, WORDS.title(),
]  # fmt: skip


def learned(model, **more):
    config = VocabularyConfig(size=390, model=model, **more)
    return learn_vocabulary(config, Languages(source="en", target="de"), LINES, LINES)


def flat(sentences):
    """Ids end to end, each sentence ending in `</s>`, and where each begins."""
    ended = [[*ids, END] for ids in sentences]
    return np.array([i for ids in ended for i in ids]), np.cumsum([0, *map(len, ended)])


def pairs_of(known, lines):
    ids, starts = flat(known.encode_target(lines))
    return EncodedPairs(ids.astype(np.uint16), starts, ids.astype(np.uint16), starts)


def sentences(pairs):
    return [pairs.target(row).tolist() for row in range(len(pairs))]
