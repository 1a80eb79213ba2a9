"""Trees of meaning, the same for all languages, drawn at random; and which split each suits."""

from __future__ import annotations

import zlib
from functools import cache
from random import Random
from typing import Any, Literal, NamedTuple

from mt.data.sources._demo.lexicon import Adjective, Noun, Phrase, Verb, lexicon

SHARE = 24
"""One in so many combinations is kept for test, and one for valid."""
Split = Literal["train", "valid", "test"]
KEPT_FOR: dict[int, Split] = {0: "test", 1: "valid"}


class Relative(NamedTuple):
    """A relative clause: the head is its subject (`s`) or object (`o`), `other` the rest."""

    role: str
    verb: Verb
    tense: str
    other: Phrasal


class Phrasal(NamedTuple):
    """A noun phrase, or a pronoun when `noun` is None."""

    determiner: str
    plural: bool
    adjective: Adjective | None = None
    noun: Noun | None = None
    relative: Relative | None = None


class Clause(NamedTuple):
    """A clause; `modal` is empty or one of MODALS, `tense` is n (present) or p (past)."""

    subject: Phrasal
    verb: Verb
    tense: str
    modal: str = ""
    negated: bool = False
    indirect: Phrasal | None = None
    object: Phrasal | None = None
    content: Clause | None = None
    companion: tuple[str, Phrasal] | None = None
    adverb: Phrase | None = None
    place: Phrase | None = None
    time: Phrase | None = None
    fronted: bool = False


class Sentence(NamedTuple):
    """One clause, a question, or two clauses joined by because, if, but, and."""

    kind: str
    first: Clause
    second: Clause | None = None


SINGULAR = ["the", "the", "the", "a", "a", "this", "every", "my"]
PLURAL = ["the", "some", "these", "many", "two", "three", "four", "five", "six", "ten"]
PRONOUNS = ["I", "we", "he", "she", "they"]
MODALS = ["can", "must", "want", "will"]
COMMON = ["plain"] * 8 + ["question"] * 2
KINDS = [*COMMON, "because", "because", "if", "but", "and", "that", "that"]


class Author:
    """Draws trees from a generator; `combined` lists the combinations that a tree holds."""

    def __init__(self, draw: Random) -> None:
        self.random = draw.random
        self.words = lexicon()
        self.combined: list[tuple[str, int, int]] = []

    def pick(self, choices: list[Any]) -> Any:
        """One of them; faster than Random.choice."""
        return choices[int(self.random() * len(choices))]

    def sentence(self) -> Sentence:
        """A tree."""
        self.combined.clear()
        kind = self.pick(KINDS)
        if kind in ("plain", "question"):
            return Sentence(kind, self.clause(kind, rich=True, fronted=kind == "plain"))
        if kind == "that":
            return Sentence("plain", self.reported(kind, fronted=True))
        first = self.clause(f"{kind}-1", fronted=kind != "if")
        inner = kind != "but" and kind != "and" and self.random() < 0.25
        second = self.reported(kind) if inner else self.clause(f"{kind}-2")
        return Sentence(kind, first, second)

    def reported(self, outer: str, fronted: bool = False) -> Clause:
        """Somebody says that ..."""
        if outer != "that":
            self.combined.append((outer, KINDS.index("that"), 0))
        verb = self.pick(self.words.verbs["cv"])
        content = self.clause(f"{outer}-that")
        time, fronted = self.when("n", fronted and self.random() < 0.2)
        tense = time.tenses if time and time.tenses in ("n", "p") else self.pick(["n", "p"])
        return Clause(
            self.noun_phrase("p"), verb, tense, content=content, time=time, fronted=fronted
        )

    def when(self, tense: str, wanted: bool) -> tuple[Phrase | None, bool]:
        """A fronted time of that tense, if wanted."""
        if not wanted:
            return None, False
        return self.pick([t for t in self.words.phrases["time"] if t.tenses == tense]), True

    def clause(self, place: str, rich: bool = False, fronted: bool = False) -> Clause:
        """A clause standing at `place` of its sentence; a rich one may have more adverbials."""
        random, words = self.random, self.words
        draw = random()
        frame = "tv" if draw < 0.7 else "iv" if draw < 0.86 else "dv"
        verb = self.pick(words.verbs[frame])
        modal = self.pick(MODALS) if random() < 0.25 else ""
        tense = "n" if modal or random() < 0.5 else "p"
        nested = 0.25 if rich else 0.12
        subject = self.noun_phrase(verb.subjects, place + "-s", nested, pronouns=0.12)
        target = indirect = companion = None
        if frame != "iv":
            target = self.noun_phrase(verb.objects, place + "-o", nested, verb=verb)
        if frame == "dv":
            indirect = self.noun_phrase("p")
        negated = random() < 0.18 and modal != "must"
        if negated and target and random() < 0.4 and target.determiner == "a":
            target, negated = target._replace(determiner="no"), False
        if target and target.determiner == "no" and modal == "must":
            target = target._replace(determiner="a")
        if negated and target and target.determiner in ("a", "every", "some", "many"):
            target = target._replace(determiner="these" if target.plural else "this")
        if rich and frame != "dv" and random() < 0.15:
            companion = (self.pick(["with", "for"]), self.noun_phrase("p"))
        adverb = self.pick(words.phrases["adv"]) if random() < 0.18 else None
        where = self.pick(words.phrases["place"]) if random() < (0.35 if rich else 0.2) else None
        time = None
        if random() < (0.35 if rich else 0.15):
            moment = "w" if modal == "will" else tense
            time = self.pick([t for t in words.phrases["time"] if moment in t.tenses])
        front = bool(fronted and time and random() < 0.5)
        return Clause(
            subject, verb, tense, modal, negated, indirect, target, None, companion, adverb,
            where, time, front,
        )  # fmt: skip

    def noun_phrase(
        self, classes: str, place: str = "", nested: float = 0.0, pronouns: float = 0.0,
        verb: Verb | None = None,
    ) -> Phrasal:  # fmt: skip
        """A noun phrase of these classes; `nested` is the chance of a relative clause."""
        random = self.random
        if pronouns and random() < pronouns:
            pronoun = self.pick(PRONOUNS)
            return Phrasal(pronoun, pronoun in ("we", "they"))
        noun = self.pick(self.words.by_class[classes])
        if verb:
            self.combined.append((f"verb-{verb.frame}", verb.number, noun.number))
        plural = random() < 0.3
        determiner = self.pick(PLURAL if plural else SINGULAR)
        adjective = None
        if random() < 0.35:
            adjective = self.pick(self.words.suits[noun.class_])
            self.combined.append(("adjective", adjective.number, noun.number))
        relative = None
        if random() < nested:
            relative = self.relative(noun, plural)
        if relative:
            self.combined.append((f"relative-{place}", "so".index(relative.role), 0))
        return Phrasal(determiner, plural, adjective, noun, relative)

    def relative(self, head: Noun, plural: bool) -> Relative | None:
        """A relative clause on `head`; None where German could not tell subject from object."""
        verb = self.pick(self.words.verbs["tv"])
        tense = self.pick(["n", "p"])
        if self.random() < 0.5:
            if head.class_ not in verb.subjects:
                return None
            return Relative("s", verb, tense, self.noun_phrase(verb.objects, verb=verb))
        if head.class_ not in verb.objects:
            return None
        other = self.noun_phrase(verb.subjects, pronouns=0.3)
        masculine = not plural and head.gender in "mw"
        if not masculine and other.noun and other.plural == plural:
            clear = not other.plural and other.noun.gender in "mw"
            if not clear:
                return None
        self.combined.append((f"verb-{verb.frame}", verb.number, head.number))
        return Relative("o", verb, tense, other)


@cache
def kept_for(what: str, one: int, other: int) -> Split:
    """The split that a combination belongs to; those of train are everywhere."""
    return KEPT_FOR.get(zlib.crc32(f"{what}/{one}/{other}".encode()) % SHARE, "train")


def suits_split(combined: list[tuple[str, int, int]], split: Split) -> bool:
    """Whether a sentence with these combinations may stand in a split."""
    found = {kept_for(*combination) for combination in combined}
    return found <= {"train", split} and (split == "train" or split in found)
