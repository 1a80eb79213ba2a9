"""Says a tree in English: do-support, third person, articles by sound."""

from __future__ import annotations

from mt.data.sources._demo.lexicon import Verb
from mt.data.sources._demo.trees import Clause, Phrasal, Sentence

THIRD_ES = ("s", "sh", "ch", "x", "z", "o")


def english(sentence: Sentence) -> str:
    """The sentence in English."""
    kind, first, second = sentence
    if kind == "question":
        return finished(english_clause(first, question=True), "?")
    words = english_clause(first)
    if second is None:
        return finished(words, ".")
    other = english_clause(second)
    if kind == "if":
        return finished(["if", *words, ",", *other], ".")
    join = [kind] if kind == "because" else [",", kind]
    return finished([*words, *join, *other], ".")


def english_clause(clause: Clause, question: bool = False) -> list[str]:
    """Subject, verb, objects, companion, place, time; the time may stand first."""
    subject = english_phrase(clause.subject)
    auxiliary, negation, verb = _english_verb(clause, question)
    adverb = [clause.adverb.words["en"]] if clause.adverb else []
    words = [*auxiliary, *subject] if question else [*subject, *auxiliary]
    # "often does not eat", but "can often eat"
    words += [*negation, *adverb, verb] if not clause.negated else [*negation, verb]
    if clause.negated and adverb:
        at = len(subject) if not question else len(words) - 1 - len(negation)
        words[at:at] = adverb
    for phrase in (clause.indirect, clause.object):
        if phrase:
            words += english_phrase(phrase)
    if clause.content:
        words += ["that", *english_clause(clause.content)]
    if clause.companion:
        words += [clause.companion[0], *english_phrase(clause.companion[1])]
    if clause.place:
        words.append(clause.place.words["en"])
    if clause.time:
        time = clause.time.words["en"]
        words = [time, *words] if clause.fronted else [*words, time]
    return words


def _english_verb(clause: Clause, question: bool) -> tuple[list[str], list[str], str]:
    """Auxiliary, negation and main verb."""
    verb, subject = clause.verb.english, clause.subject
    third = not subject.plural and subject.determiner != "I"
    negation = ["not"] if clause.negated else []
    if clause.modal in ("can", "must", "will"):
        return [clause.modal], negation, verb
    if clause.modal == "want":
        if negation or question:
            return ["does" if third else "do"], [*negation, "want", "to"], verb
        return [], ["wants" if third else "want", "to"], verb
    if negation or question:
        return ["did" if clause.tense == "p" else "does" if third else "do"], negation, verb
    return [], [], english_form(clause.verb, clause.tense, third)


def english_form(verb: Verb, tense: str, third: bool) -> str:
    """The finite form."""
    if tense == "p":
        return verb.past
    base = verb.english
    if not third:
        return base
    if base.endswith(THIRD_ES):
        return base + "es"
    if base.endswith("y") and base[-2] not in "aeiou":
        return base[:-1] + "ies"
    return base + "s"


def english_phrase(phrase: Phrasal) -> list[str]:
    """Determiner, adjective, noun, relative clause."""
    if phrase.noun is None:
        return [phrase.determiner]
    noun = phrase.noun.english_plural if phrase.plural else phrase.noun.english
    words = [phrase.adjective.english, noun] if phrase.adjective else [noun]
    determiner = phrase.determiner
    if determiner == "a" and words[0][0] in "aeiou" and not words[0].startswith("use"):
        determiner = "an"
    words = [determiner, *words]
    if phrase.relative:
        role, verb, tense, other = phrase.relative
        if role == "s":
            third = not phrase.plural
            words += ["that", english_form(verb, tense, third), *english_phrase(other)]
        else:
            third = not other.plural and other.determiner != "I"
            words += ["that", *english_phrase(other), english_form(verb, tense, third)]
    return words


def finished(words: list[str], end: str) -> str:
    """One line: commas attached, none doubled or before the end, the first letter large."""
    text = " ".join(words).replace(" ,", ",").replace(",,", ",").rstrip(",") + end
    return text[0].upper() + text[1:]
