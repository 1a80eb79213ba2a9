"""The words of the demo grammar, read from `lexicon.tsv`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Noun(NamedTuple):
    """A noun; a German weak masculine (gender w) has its plural's form in the singular too."""

    number: int
    class_: str
    english: str
    english_plural: str
    german: str
    gender: str
    german_plural: str
    chinese: str
    measure: str


class Adjective(NamedTuple):
    """An adjective that suits the classes of nouns named."""

    number: int
    classes: str
    english: str
    german: str
    chinese: str


class Verb(NamedTuple):
    """A verb of any frame: transitive, intransitive, with two objects, with a that-clause."""

    number: int
    frame: str
    subjects: str
    objects: str
    english: str
    past: str
    prefix: str
    infinitive: str
    third: str
    participle: str
    auxiliary: str
    chinese: str


class Phrase(NamedTuple):
    """An adverbial; `tenses` are those that a time suits."""

    number: int
    tenses: str
    words: dict[str, str]


@dataclass(frozen=True)
class Lexicon:
    """All words, and what goes with what."""

    nouns: list[Noun]
    adjectives: list[Adjective]
    verbs: dict[str, list[Verb]]
    phrases: dict[str, list[Phrase]]
    by_class: dict[str, list[Noun]]
    suits: dict[str, list[Adjective]]


@cache
def lexicon() -> Lexicon:
    """The lexicon in `lexicon.tsv`."""
    nouns: list[Noun] = []
    adjectives: list[Adjective] = []
    verbs: dict[str, list[Verb]] = {"tv": [], "iv": [], "dv": [], "cv": []}
    phrases: dict[str, list[Phrase]] = {"time": [], "adv": [], "place": []}
    path = Path(__file__).with_name("lexicon.tsv")
    for line in path.read_text(encoding="utf-8").splitlines():
        kind, *fields = line.split("\t")
        if kind == "noun":
            nouns.append(Noun(len(nouns), *fields))
        elif kind == "adj":
            adjectives.append(Adjective(len(adjectives), *fields))
        elif kind in verbs:
            verbs[kind].append(_verb(len(verbs[kind]), kind, fields))
        elif kind in phrases:
            tenses = fields.pop(0) if kind == "time" else ""
            words = dict(zip(("en", "de", "zh"), fields, strict=True))
            phrases[kind].append(Phrase(len(phrases[kind]), tenses, words))
    classes = ["p", "a", "t", "f", "pa", "tf", "patf"]
    by_class = {c: [noun for noun in nouns if noun.class_ in c] for c in classes}
    suits = {c: [adj for adj in adjectives if c in adj.classes] for c in "patf"}
    return Lexicon(nouns, adjectives, verbs, phrases, by_class, suits)


def _verb(number: int, frame: str, fields: list[str]) -> Verb:
    subjects = fields.pop(0) if frame in ("tv", "iv") else "p"
    objects = fields.pop(0) if frame == "tv" else "tf"
    auxiliary = fields.pop(5) if frame == "iv" else "h"
    english, past, german, third, participle, chinese = fields
    prefix, _, infinitive = german.rpartition("|")
    return Verb(
        number, frame, subjects, objects, english, past, prefix, infinitive, third, participle,
        auxiliary, chinese,
    )  # fmt: skip
