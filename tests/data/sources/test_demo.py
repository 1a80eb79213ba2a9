"""Laws of the demo grammar: agreement, one meaning, splits that share no sentence."""

from __future__ import annotations

from collections import Counter
from itertools import chain, islice, permutations
from random import Random

import pytest
import sacrebleu

from mt.config.schema import Languages
from mt.data.sources import demo
from mt.data.sources._demo import german, lexicon, trees
from mt.data.sources._demo.trees import Clause, Phrasal, Relative, Sentence
from mt.errors import ConfigError

WORDS = lexicon.lexicon()


def config(split="train", size=1000, seed=1, source="en", target="de"):
    languages = Languages(source=source, target=target)
    return demo.Config(split=split, size=size, seed=seed, languages=languages)


def word(kind, english):
    lists = {"noun": WORDS.nouns, "adj": WORDS.adjectives, **WORDS.verbs}
    return next(entry for entry in lists[kind] if entry.english == english)


def phrase(kind, english):
    return next(p for p in WORDS.phrases[kind] if p.words["en"] == english)


def noun(determiner, english, adjective=None, plural=False, relative=None):
    adjective = word("adj", adjective) if adjective else None
    return Phrasal(determiner, plural, adjective, word("noun", english), relative)


def test_the_lexicon_has_400_lemmas_and_no_form_twice():
    entries = [*WORDS.nouns, *WORDS.adjectives, *chain(*WORDS.verbs.values())]
    phrases = [*chain(*WORDS.phrases.values())]
    assert len(entries) + len(phrases) >= 400
    assert len({n.gender for n in WORDS.nouns} - set("mfnw")) == 0
    for forms in (
        [e.english for e in entries] + [p.words["en"] for p in phrases],
        [e.chinese for e in entries] + [p.words["zh"] for p in phrases],
        [n.german for n in WORDS.nouns],
        [v.prefix + v.infinitive for vs in WORDS.verbs.values() for v in vs],
        [a.german for a in WORDS.adjectives],
    ):
        assert [form for form, count in Counter(forms).items() if count > 1] == []
        assert all(forms)


@pytest.mark.parametrize(
    ("case", "determiner", "english", "plural", "expected"),
    [
        ("nominative", "the", "dog", False, "der alte Hund"),
        ("accusative", "the", "dog", False, "den alten Hund"),
        ("dative", "the", "dog", False, "dem alten Hund"),
        ("dative", "the", "cat", False, "der alten Katze"),
        ("dative", "the", "child", True, "den alten Kindern"),
        ("dative", "the", "car", True, "den alten Autos"),
        ("nominative", "a", "dog", False, "ein alter Hund"),
        ("accusative", "a", "dog", False, "einen alten Hund"),
        ("nominative", "a", "book", False, "ein altes Buch"),
        ("accusative", "no", "cat", False, "keine alte Katze"),
        ("dative", "my", "book", False, "meinem alten Buch"),
        ("accusative", "this", "boy", False, "diesen alten Jungen"),
        ("nominative", "this", "boy", False, "dieser alte Junge"),
        ("dative", "every", "bear", False, "jedem alten Bären"),
        ("nominative", "two", "woman", True, "zwei alte Frauen"),
        ("dative", "two", "woman", True, "zwei alten Frauen"),
        ("accusative", "some", "man", True, "einige alte Männer"),
        ("dative", "many", "man", True, "vielen alten Männern"),
        ("accusative", "these", "man", True, "diese alten Männer"),
    ],
)
def test_german_noun_phrases_agree(case, determiner, english, plural, expected):
    found = german.german_phrase(noun(determiner, english, "old", plural), case)
    assert " ".join(found) == expected


def relative(role, verb, other, tense="n"):
    return Relative(role, word("tv", verb), tense, other)


def clause(subject, verb, target=None, frame="tv", tense="n", **more):
    return Clause(subject, word(frame, verb), tense, object=target, **more)


DOG, CAT, MAN = noun("the", "dog"), noun("the", "cat"), noun("the", "man")
CASES = [
    (
        Sentence("plain", clause(MAN, "buy", noun("a", "book", "red"), tense="p")),
        "The man bought a red book.",
        "Der Mann hat ein rotes Buch gekauft.",
        "那个男人购买了一本红色的书。",
    ),
    (
        Sentence("plain", clause(DOG, "attack", CAT, time=phrase("time", "today"), fronted=True)),
        "Today the dog attacks the cat.",
        "Heute greift der Hund die Katze an.",
        "今天那条狗攻击那只猫。",
    ),
    (
        Sentence("question", clause(MAN, "love", CAT, tense="p")),
        "Did the man love the cat?",
        "Hat der Mann die Katze geliebt?",
        "那个男人爱了那只猫吗？",
    ),
    (
        Sentence("plain", clause(MAN, "open", noun("this", "door"), negated=True, modal="can")),
        "The man can not open this door.",
        "Der Mann kann diese Tür nicht aufmachen.",
        "那个男人不能打开这扇门。",
    ),
    (
        Sentence("plain", clause(DOG, "find", noun("no", "apple"), tense="p")),
        "The dog found no apple.",
        "Der Hund hat keinen Apfel gefunden.",
        "那条狗没有找到任何苹果。",
    ),
    (
        Sentence("because", clause(MAN, "run", frame="iv", tense="p"), clause(DOG, "wake", CAT)),
        "The man ran because the dog wakes the cat.",
        "Der Mann ist gerannt, weil der Hund die Katze aufweckt.",
        "因为那条狗叫醒那只猫，所以那个男人跑步了。",
    ),
    (
        Sentence("if", clause(MAN, "sing", frame="iv"), clause(DOG, "sleep", frame="iv")),
        "If the man sings, the dog sleeps.",
        "Wenn der Mann singt, schläft der Hund.",
        "如果那个男人唱歌，那么那条狗睡觉。",
    ),
    (
        Sentence(
            "plain",
            clause(MAN, "say", frame="cv", content=clause(DOG, "bite", CAT, tense="p")),
        ),
        "The man says that the dog bit the cat.",
        "Der Mann sagt, dass der Hund die Katze gebissen hat.",
        "那个男人说那条狗咬了那只猫。",
    ),
    (
        Sentence(
            "plain",
            clause(
                noun("the", "woman", "young", relative=relative("s", "build", noun("a", "table"))),
                "like",
                noun("the", "book", relative=relative("o", "borrow", Phrasal("I", False), "p")),
            ),
        ),
        "The young woman that builds a table likes the book that I borrowed.",
        "Die junge Frau, die einen Tisch baut, mag das Buch, das ich ausgeliehen habe.",
        "制造一张桌子的那个年轻的女人喜欢我借用过的那本书。",
    ),
    (
        Sentence(
            "plain",
            clause(
                noun("every", "teacher"), "give", noun("a", "apple"), frame="dv",
                indirect=noun("the", "child", plural=True), place=phrase("place", "in the school"),
            ),
        ),
        "Every teacher gives the children an apple in the school.",
        "Jeder Lehrer gibt den Kindern einen Apfel in der Schule.",
        "每位老师在学校里交给那些孩子一个苹果。",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("tree", "english", "german_", "chinese"), CASES, ids=range(len(CASES)))
def test_a_tree_is_written_by_the_rules_of_each_language(tree, english, german_, chinese):
    assert [demo.SAY[language](tree) for language in ("en", "de", "zh")] == [
        english,
        german_,
        chinese,
    ]


def test_reading_is_pure_and_a_smaller_size_is_a_prefix():
    pairs = demo.read(config(size=300))
    assert list(pairs) == list(pairs)
    assert list(demo.read(config(size=100))) == list(pairs)[:100]
    assert next(iter(pairs)).origin == "demo/train:1"
    other = next(iter(demo.read(config(size=1, seed=2))))
    assert other.source != next(iter(pairs)).source


def test_the_same_sentences_in_every_direction():
    forth = [(p.source, p.target) for p in demo.read(config(size=200))]
    back = [(p.target, p.source) for p in demo.read(config(size=200, source="de", target="en"))]
    assert forth == back


def combinations(split, size):
    """The combinations of each sentence."""
    draw = Random()
    author = trees.Author(draw)
    for number in range(size):
        draw.seed(number)
        author.sentence()
        if trees.suits_split(author.combined, split):
            yield set(author.combined)


def test_test_sentences_have_combinations_that_training_never_shows():
    train = set().union(*combinations("train", 20_000))
    for split in ("valid", "test"):
        for found in islice(combinations(split, 20_000), 500):
            assert found - train
    test = set().union(*combinations("test", 20_000))
    for kind in ("verb-tv", "adjective"):
        assert [c for c in test - train if c[0] == kind]
    assert [c for c in test - train if c[0].startswith(("relative", "that", "because", "if"))]


def test_splits_share_no_sentence():
    sides = {
        split: {pair.source for pair in demo.read(config(split, size))}
        for split, size in (("train", 20_000), ("valid", 1000), ("test", 1000))
    }
    assert len(sides["test"]) == len(sides["valid"]) == 1000  # none comes twice
    for one, other in permutations(sides, 2):
        assert not sides[one] & sides[other]


def test_every_word_occurs_in_training():
    text = Counter()
    for tree, _ in demo.sentences(config(size=15_000)):
        for part in (tree.first, tree.second, tree.first.content):
            if part:
                text[(part.verb.frame, part.verb.number)] += 1
                for np in (part.subject, part.object, part.indirect):
                    if np and np.noun:
                        text[("noun", np.noun.number)] += 1
                    if np and np.adjective:
                        text[("adj", np.adjective.number)] += 1
    wanted = {("noun", n.number) for n in WORDS.nouns}
    wanted |= {("adj", a.number) for a in WORDS.adjectives}
    wanted |= {(frame, v.number) for frame, vs in WORDS.verbs.items() for v in vs}
    assert wanted - set(text) == set()


def test_sentences_have_4_to_25_words():
    for pair in demo.read(config(size=20_000)):
        assert 4 <= len(pair.source.split()) <= 25
        assert 4 <= len(pair.target.split()) <= 25


def test_each_sentence_has_one_translation():
    said = {"en": {}, "de": {}, "zh": {}}
    for tree, english in demo.sentences(config(size=20_000)):
        texts = {"en": english, "de": demo.SAY["de"](tree), "zh": demo.SAY["zh"](tree)}
        for language, text in texts.items():
            assert said[language].setdefault(text, texts) == texts


def test_there_are_more_than_ten_million_sentences():
    """Counting only: determiner noun, verb in two tenses, determiner adjective noun."""
    count = 0
    for verb in WORDS.verbs["tv"]:
        subjects = sum(noun.class_ in verb.subjects for noun in WORDS.nouns)
        objects = sum(
            len(WORDS.suits[noun.class_]) for noun in WORDS.nouns if noun.class_ in verb.objects
        )
        count += 2 * subjects * objects
    assert count * 4 * 4 > 10_000_000  # four determiners in the singular on each side


def test_a_language_may_have_another_code():
    assert [(p.source, p.target) for p in demo.read(config(target="deu"))] == [
        (p.source, p.target) for p in demo.read(config(target="de"))
    ]


def test_an_unknown_language_is_named():
    with pytest.raises(ConfigError, match="does not speak 'fr'; it speaks en, de, zh"):
        demo.read(config(target="fr"))


@pytest.mark.parametrize(("source", "target"), list(permutations(["en", "de", "zh"], 2)))
def test_a_dictionary_alone_does_not_translate(source, target):
    """Each source word becomes the word that it stands beside most often (Dice), in place."""

    def cut(text, language):
        return list(text) if language == "zh" else text.rstrip(".?").replace(",", " ,").split()

    pairs = [
        (cut(p.source, source), cut(p.target, target))
        for p in demo.read(config(size=3000, source=source, target=target))
    ]
    left, right, both = Counter(), Counter(), Counter()
    for one, other in pairs:
        left.update(set(one))
        right.update(set(other))
        both.update((a, b) for a in set(one) for b in set(other))
    best: dict[str, tuple[float, str]] = {}
    for (a, b), count in both.items():
        best[a] = max(best.get(a, (0.0, "")), (2 * count / (left[a] + right[b]), b))
    join = "" if target == "zh" else " "
    tests = list(demo.read(config("test", 300, source=source, target=target)))
    glosses = [
        join.join(best.get(w, (0, ""))[1] for w in cut(p.source, source)) + p.target[-1]
        for p in tests
    ]
    tokenize = "zh" if target == "zh" else "13a"
    bleu = sacrebleu.corpus_bleu(glosses, [[p.target for p in tests]], tokenize=tokenize)
    assert bleu.score < 40


def test_a_fixed_share_of_the_combinations_is_held_out():
    shares = Counter(trees.kept_for("adjective", a, n) for a in range(71) for n in range(171))
    assert 0.02 < shares["test"] / shares.total() < 0.07
    assert 0.02 < shares["valid"] / shares.total() < 0.07
