"""Pairs of German sentences that differ in the number of one verb, far from its subject.

The sentences are those of the demo grammar that end in a finite verb whose number the English shows
in the subject only: a subordinate clause at the end, in the perfect or with a modal verb. The
distance is the number of words between the subject's noun and the verb.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mt.config.schema import Languages
from mt.data.sources import demo
from mt.data.sources._demo.english import english
from mt.data.sources._demo.german import german, german_phrase, german_verb
from mt.data.sources._demo.trees import Clause, Sentence


@dataclass(frozen=True)
class Contrast:
    """A source with its right target, one with the verb in the wrong number, and the distance."""

    source: str
    right: str
    wrong: str
    distance: int


def contrasts(size: int, seed: int) -> Iterator[Contrast]:
    """Yield the contrasts among the first sentences of the test split."""
    languages = Languages(source="en", target="de")
    config = demo.Config(split="test", size=size, seed=seed, languages=languages)
    for tree, _ in demo.sentences(config):
        found = contrast(tree)
        if found is not None:
            yield found


def contrast(tree: Sentence) -> Contrast | None:
    """Return the contrast of a sentence, or None where it has none."""
    clause = last_clause(tree)
    if clause is None or clause.subject.noun is None:
        return None
    if clause.tense != "p" and clause.modal not in ("can", "must", "will"):
        return None  # "the dog eats": the English verb shows the number, too
    other = clause._replace(subject=clause.subject._replace(plural=not clause.subject.plural))
    finite, changed = german_verb(clause)[0], german_verb(other)[0]
    right = german(tree)
    words = right.rstrip(".").split()
    if words[-1] != finite or changed == finite:
        return None
    wrong = " ".join([*words[:-1], changed]) + "."
    # The subject is first in its clause, and its noun precedes its relative clause.
    until_noun = german_phrase(clause.subject._replace(relative=None), "nominative")
    distance = len(clause_words(clause)) - len(until_noun) - 1
    return Contrast(english(tree), right, wrong, distance)


def last_clause(tree: Sentence) -> Clause | None:
    """Return the clause at the end if its finite verb is last."""
    if tree.kind == "because" and tree.second is not None:
        clause = tree.second
        return clause.content or clause
    return tree.first.content if tree.second is None else None


def clause_words(clause: Clause) -> list[str]:
    """Return the words of a clause whose verb is last, without commas."""
    text = german(Sentence("because", clause, clause)).rstrip(".")
    words = text[text.index("weil ") + 5 :].split()
    return [word for word in words if word != ","]
