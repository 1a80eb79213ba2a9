"""Says a tree in Chinese: measure words, relative clauses before their noun, aspect."""

from __future__ import annotations

from mt.data.sources._demo.trees import Clause, Phrasal, Relative, Sentence

CHINESE_NUMBERS = {"two": "两", "three": "三", "four": "四", "five": "五", "six": "六", "ten": "十"}
CHINESE_PLURAL = {"the": "那些", "these": "这些", "some": "一些", "many": "许多"}
CHINESE_SINGULAR = {"the": "那", "a": "一", "this": "这", "every": "每"}
CHINESE_PRONOUNS = {"I": "我", "we": "我们", "he": "他", "she": "她", "they": "他们"}
CHINESE_MODALS = {"can": "能", "must": "必须", "want": "想", "will": "会", "": ""}


def chinese(sentence: Sentence) -> str:
    """The sentence in Chinese; the words are joined without spaces."""
    kind, first, second = sentence
    if second is None:
        end = ["吗", "？"] if kind == "question" else ["。"]
        return "".join([*chinese_clause(first), *end])
    one, two = chinese_clause(first), chinese_clause(second)
    if kind == "because":  # the reason comes first
        return "".join(["因为", *two, "，", "所以", *one, "。"])
    if kind == "if":
        return "".join(["如果", *one, "，", "那么", *two, "。"])
    return "".join([*one, "，", "但是" if kind == "but" else "而且", *two, "。"])


def chinese_clause(clause: Clause) -> list[str]:
    """Time, subject, adverb, negation and modal, place, companion, verb, objects."""
    words = []
    if clause.time and clause.fronted:
        words.append(clause.time.words["zh"])
    words += chinese_phrase(clause.subject)
    if clause.time and not clause.fronted:
        words.append(clause.time.words["zh"])
    if clause.adverb:
        words.append(clause.adverb.words["zh"])
    past = clause.tense == "p" and not clause.content
    no_object = clause.object is not None and clause.object.determiner == "no"
    if clause.negated or no_object:
        words.append("没有" if past else "不")
    words.append(CHINESE_MODALS[clause.modal])
    if clause.place:
        words.append(clause.place.words["zh"])
    if clause.companion:
        word, phrase = clause.companion
        beside = chinese_phrase(phrase)
        words += ["和", *beside, "一起"] if word == "with" else ["为", *beside]
    if clause.content and clause.tense == "p":
        words.append("曾")
    words.append(clause.verb.chinese)
    if past and not (clause.negated or no_object):
        words.append("了")
    for phrase_ in (clause.indirect, clause.object):
        if phrase_:
            words += chinese_phrase(phrase_)
    if clause.content:
        words += chinese_clause(clause.content)
    return words


def chinese_phrase(phrase: Phrasal) -> list[str]:
    """Relative clause, determiner, measure word, adjective, noun."""
    noun = phrase.noun
    if noun is None:
        return [CHINESE_PRONOUNS[phrase.determiner]]
    words = _chinese_relative(phrase.relative) if phrase.relative else []
    name = phrase.determiner
    if name == "my":
        words.append("我的")
    elif name == "no":
        words.append("任何")
    elif name in CHINESE_NUMBERS:
        words += [CHINESE_NUMBERS[name], noun.measure]
    elif phrase.plural:
        words.append(CHINESE_PLURAL[name])
    else:
        words += [CHINESE_SINGULAR[name], noun.measure]
    if phrase.adjective:
        words.append(phrase.adjective.chinese)
    return [*words, noun.chinese]


def _chinese_relative(relative: Relative) -> list[str]:
    verb = [relative.verb.chinese, "过" if relative.tense == "p" else ""]
    other = chinese_phrase(relative.other)
    return [*verb, *other, "的"] if relative.role == "s" else [*other, *verb, "的"]
