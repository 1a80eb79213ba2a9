"""Says a tree in German: the verb second, first or last; case, gender and number agree."""

from __future__ import annotations

from mt.data.sources._demo.english import finished
from mt.data.sources._demo.lexicon import Noun, Verb
from mt.data.sources._demo.trees import Clause, Phrasal, Relative, Sentence

CASES = {"nominative": 0, "accusative": 1, "dative": 2}
DER = {"m": ("der", "den", "dem"), "f": ("die", "die", "der"), "n": ("das", "das", "dem"),
       "p": ("die", "die", "den")}  # fmt: skip
DIES = {"m": ("er", "en", "em"), "f": ("e", "e", "er"), "n": ("es", "es", "em"),
        "p": ("e", "e", "en")}  # fmt: skip
EIN = {"m": ("", "en", "em"), "f": ("e", "e", "er"), "n": ("", "", "em")}
RELATIVE = {**DER, "p": ("die", "die", "denen")}
WEAK = {"m": ("e", "en", "en"), "f": ("e", "e", "en"), "n": ("e", "e", "en"),
        "p": ("en", "en", "en")}  # fmt: skip
MIXED = {"m": ("er", "en", "en"), "f": ("e", "e", "en"), "n": ("es", "es", "en")}
GERMAN_BARE = {
    "two": "zwei", "three": "drei", "four": "vier", "five": "fünf", "six": "sechs", "ten": "zehn",
}  # fmt: skip
GERMAN_STEMS = {"this": "dies", "these": "dies", "every": "jed", "some": "einig", "many": "viel"}
GERMAN_EIN = {"a": "ein", "my": "mein", "no": "kein"}
GERMAN_PRONOUNS = {"I": "ich", "we": "wir", "he": "er", "she": "sie", "they": "sie"}
GERMAN_MODALS = {
    "can": ("kann", "können"), "must": ("muss", "müssen"), "want": ("will", "wollen"),
    "will": ("wird", "werden"),
}  # fmt: skip


def german(sentence: Sentence) -> str:
    """The sentence in German."""
    kind, first, second = sentence
    if kind == "question":
        return finished(german_clause(first, "first"), "?")
    if second is None:
        return finished(german_clause(first, "second"), ".")
    if kind == "if":
        condition = ["wenn", *german_clause(first, "last"), ","]
        return finished([*condition, *german_clause(second, "first")], ".")
    if kind == "because":
        words = [*german_clause(first, "second"), ",", "weil", *german_clause(second, "last")]
        return finished(words, ".")
    join = "aber" if kind == "but" else "und"
    words = [*german_clause(first, "second"), ",", join, *german_clause(second, "second")]
    return finished(words, ".")


def german_clause(clause: Clause, finite_at: str) -> list[str]:
    """A clause whose finite verb comes first, second or last."""
    subject = german_phrase(clause.subject, "nominative")
    finite, rest = german_verb(clause)
    middle = []
    if clause.time and not clause.fronted:
        middle.append(clause.time.words["de"])
    if clause.adverb:
        middle.append(clause.adverb.words["de"])
    if clause.indirect:
        middle += german_phrase(clause.indirect, "dative")
    if clause.object:
        middle += german_phrase(clause.object, "accusative")
    if clause.companion:
        word, phrase = clause.companion
        case = "dative" if word == "with" else "accusative"
        middle += ["mit" if word == "with" else "für", *german_phrase(phrase, case)]
    if clause.place:
        middle.append(clause.place.words["de"])
    if clause.negated:
        middle.append("nicht")
    if finite_at == "last":
        joined = [rest[0] + finite] if rest == [clause.verb.prefix] else [*rest, finite]
        words = [*subject, *middle, *joined]
    elif finite_at == "first":
        words = [finite, *subject, *middle, *rest]
    elif clause.fronted and clause.time:
        words = [clause.time.words["de"], finite, *subject, *middle, *rest]
    else:
        words = [*subject, finite, *middle, *rest]
    if clause.content:
        words += [",", "dass", *german_clause(clause.content, "last")]
    return words


def german_verb(clause: Clause) -> tuple[str, list[str]]:
    """The finite form, and what closes the verb bracket: participle, infinitive or prefix."""
    verb, plural = clause.verb, clause.subject.plural
    first = clause.subject.determiner == "I"
    if clause.modal:
        third, infinitive = GERMAN_MODALS[clause.modal]
        finite = infinitive if plural else "werde" if first and third == "wird" else third
        return finite, [verb.prefix + verb.infinitive]
    if clause.tense == "p":
        haben = ("haben", "habe", "hat") if verb.auxiliary == "h" else ("sind", "bin", "ist")
        return haben[0] if plural else haben[1 if first else 2], [verb.participle]
    return german_present(verb, plural, first), [verb.prefix] if verb.prefix else []


def german_present(verb: Verb, plural: bool, first: bool) -> str:
    """Present tense: sie essen, ich esse, er isst; mag and weiß have no ending."""
    if plural:
        return verb.infinitive
    if first and verb.third.endswith("t"):
        return verb.infinitive.removesuffix("n")
    return verb.third


def german_phrase(phrase: Phrasal, case: str) -> list[str]:
    """Determiner, adjective and noun that agree in case, gender and number; relative clause."""
    if phrase.noun is None:
        return [GERMAN_PRONOUNS[phrase.determiner]]
    at = CASES[case]
    noun = phrase.noun
    gender = "p" if phrase.plural else "m" if noun.gender == "w" else noun.gender
    determiner, endings = _german_determiner(phrase.determiner, gender, at)
    words = [determiner]
    if phrase.adjective:
        words.append(_german_stem(phrase.adjective.german) + endings[gender][at])
    words.append(_german_noun(phrase, noun, at))
    if phrase.relative:
        words += _german_relative(phrase.relative, gender, phrase.plural)
    return words


def _german_determiner(
    name: str, gender: str, at: int
) -> tuple[str, dict[str, tuple[str, str, str]]]:
    """The determiner, and the endings that an adjective has after it."""
    if name == "the":
        return DER[gender][at], WEAK
    if name in GERMAN_BARE:
        return GERMAN_BARE[name], DIES
    if name in ("some", "many"):
        return GERMAN_STEMS[name] + DIES[gender][at], DIES
    if name in GERMAN_STEMS:
        return GERMAN_STEMS[name] + DIES[gender][at], WEAK
    return GERMAN_EIN[name] + EIN[gender][at], MIXED


def _german_stem(adjective: str) -> str:
    return adjective.removesuffix("e") if adjective == "müde" else adjective


def _german_noun(phrase: Phrasal, noun: Noun, at: int) -> str:
    if not phrase.plural:
        return noun.german_plural if noun.gender == "w" and at else noun.german
    plural = noun.german_plural
    return plural + "n" if at == 2 and not plural.endswith(("n", "s")) else plural


def _german_relative(relative: Relative, gender: str, plural: bool) -> list[str]:
    role, verb, tense, other = relative
    subject = Phrasal("the", plural) if role == "s" else other
    finite, rest = german_verb(Clause(subject, verb, tense))
    joined = [rest[0] + finite] if rest == [verb.prefix] else [*rest, finite]
    if role == "s":
        return [",", RELATIVE[gender][0], *german_phrase(other, "accusative"), *joined, ","]
    return [",", RELATIVE[gender][1], *german_phrase(other, "nominative"), *joined, ","]
