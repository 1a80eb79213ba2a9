"""Sentences and the small vocabularies learned from them."""

from mt.config.schema import Languages, VocabularyConfig
from mt.vocabulary.learn import learn_vocabulary

ENGLISH = Languages(source="en", target="de")

SIZE = 366

NOUNS = ["house", "tree", "river", "street", "child", "window", "morning", "letter", "garden"]

VERBS = ["sees", "finds", "keeps", "paints", "follows", "forgets", "answers", "remembers"]

SOURCE = [f"The {a} {v} the {b}, and the {b} {v} it." for a in NOUNS for v in VERBS for b in NOUNS]

TARGET = [f"Der {a}süß {v}t den {b}er; ‘gewiß’." for a in NOUNS for v in VERBS for b in NOUNS]

RESERVED = [
    "<s>",
    "</s>",
    "<pad>",
    "<unk>",
    "<mask>",
    "<bt>",
    "<reserved_7>",
    "<2de>",
    "<0x41>",
    "▁",
]


def learned(**values):
    return learn_vocabulary(VocabularyConfig(**{"size": SIZE, **values}), ENGLISH, SOURCE, TARGET)
