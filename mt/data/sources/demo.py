"""Sentences in English, German and Chinese with one meaning, from a small authored grammar.

A sentence is first a tree (clauses, noun phrases, words of a lexicon), then rendered in each
language by that language's own rules: German moves the verb (second, first, last) and inflects
for case, gender and number; Chinese counts with measure words and puts relative clauses before
their noun. Every sentence has one translation. Combinations of words (verb with object,
adjective with noun, clause within clause) are dealt to train, valid and test by a stable hash,
so that the test set has combinations that training never shows.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from random import Random

from pydantic import Field

from mt.config.schema import SourceConfig
from mt.data.languages import base_code
from mt.data.pairs import Pair, Pairs
from mt.data.sources._demo.chinese import chinese
from mt.data.sources._demo.english import english
from mt.data.sources._demo.german import german
from mt.data.sources._demo.trees import Author, Sentence, Split, suits_split
from mt.errors import ConfigError

FEWEST_WORDS, MOST_WORDS = 6, 20
"""Of the English sentence, which keeps all three languages within 4 to 25 words."""


class Config(SourceConfig):
    """How many sentences, and which."""

    kind: str = "demo"
    split: Split = "train"
    """Which share of the word combinations; test holds some that train never does."""
    size: int = Field(100_000, ge=1, le=10**9)
    """How many pairs."""
    seed: int = Field(1, ge=0, lt=2**31)
    """Chooses the sentences; which combinations are held out does not depend on it."""


SAY = {"en": english, "de": german, "zh": chinese}


def sentences(config: Config) -> Iterator[tuple[Sentence, str]]:
    """The trees of a split, with their English; number i depends on (seed, split, i) alone.

    In valid and test, though, a sentence that came before is drawn again.
    """
    draw = Random()
    author = Author(draw)
    seen: set[str] = set()
    base = zlib.crc32(f"{config.seed}/{config.split}".encode()) << 40
    for number in range(config.size):
        draw.seed(base + number)
        while True:
            tree = author.sentence()
            if not suits_split(author.combined, config.split):
                continue
            text = english(tree)
            if not FEWEST_WORDS <= text.count(" ") + 1 <= MOST_WORDS:
                continue
            if config.split == "train":
                break
            if text not in seen:
                seen.add(text)
                break
        yield tree, text


def _pairs(config: Config) -> Iterator[Pair]:
    source, target = config.direction.source, config.direction.target
    name = f"demo/{config.split}"
    for number, (tree, text) in enumerate(sentences(config), start=1):
        sides = [text if to == "en" else SAY[to](tree) for to in map(base_code, (source, target))]
        yield Pair(sides[0], sides[1], source, target, f"{name}:{number}")


def read(config: Config) -> Iterable[Pair]:
    """The sentences of a split in the two languages of its direction.

    Raises:
        ConfigError: a language that the grammar does not speak.
    """
    for language in (config.direction.source, config.direction.target):
        if base_code(language) not in SAY:
            what = f"the demo source does not speak {language!r}; it speaks {', '.join(SAY)}"
            raise ConfigError("DEMO-LANGUAGE", "languages", what, "choose two of these")
    return Pairs(partial(_pairs, config))
