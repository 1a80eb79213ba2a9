"""Rule: words that do not translate each other."""

from random import Random

import pytest
from filter_checks import build

from mt.config.plugins import plugin

WORDS = [f"{a}{b}" for a in "bdfgklmnpr" for b in ("ana", "oto", "ule", "ime", "eku")]


def corpus(count, seed=1):
    """Pairs of a language and of its mirror image, whose words are in another order."""
    draw = Random(seed)
    pairs = []
    for _ in range(count):
        words = draw.sample(WORDS, draw.randint(4, 9))
        pairs.append((" ".join(words), " ".join(word[::-1] for word in reversed(words))))
    return pairs


@pytest.fixture(scope="module")
def rule():
    learned = build("alignment")
    learned.learn(corpus(600))
    return learned


def test_translations_pass_and_others_fail(rule):
    pairs = corpus(100, seed=2)
    sources, targets = zip(*pairs, strict=True)
    assert rule.check(sources, targets) == [None] * 100
    values = rule.check(sources, [*targets[1:], targets[0]])
    assert sum(value is not None for value in values) > 80
    assert all(value is None or value < 0 for value in values)


def test_unknown_words_say_nothing(rule):
    assert rule.check(["xxx yyy zzz aaa"], ["ooo uuu ppp iii"]) == [None]
    assert rule.check([], []) == []


def test_a_pair_is_judged_alike_in_any_chunk(rule):
    pairs = corpus(30, seed=3)
    sources, targets = ([pair[side] for pair in pairs] for side in (0, 1))
    targets = targets[5:] + targets[:5]
    alone = [rule.check([a], [b])[0] for a, b in zip(sources, targets, strict=True)]
    assert alone == pytest.approx(rule.check(sources, targets))


def test_chinese_is_compared_by_characters():
    learned = build("alignment", source="zh", target="de")
    pairs = [(s.replace(" ", ""), t) for s, t in corpus(300)]
    learned.learn(pairs)
    assert max(map(len, learned.sides[0].ids)) == 1
    assert max(map(len, learned.sides[1].ids)) > 1


def test_a_large_sample_is_thinned_and_each_known_word_is_learned_from(monkeypatch):
    monkeypatch.setattr(plugin("filters", "alignment"), "LINKS", 1500)
    learned = build("alignment")
    learned.learn(corpus(600))
    words, forward = learned.sides[1], learned.directions[0]
    assert 0 < len(words.ids) < len(WORDS)
    assert set(words.ids.values()) <= set((forward.keys % words.size).tolist())
