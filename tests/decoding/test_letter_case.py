"""Lines in capitals: what they are, their usual spelling, and capitals for what stays text."""

from __future__ import annotations

import pytest
import tiny_run

from mt.config.schema import Languages, VocabularyConfig
from mt.decoding.letter_case import capitalise, is_capitals, is_title, restore_case
from mt.vocabulary.learn import learn_vocabulary


@pytest.fixture(scope="module")
def encode():
    languages = Languages(source="en", target="de")
    config = VocabularyConfig(size=408, model="bpe")
    lines = [*tiny_run.SOURCES, *map(str.lower, tiny_run.SOURCES * 3), *["Anna eats"] * 5]
    return learn_vocabulary(config, languages, lines, tiny_run.TARGETS).encode_source


@pytest.mark.parametrize(
    ("line", "shouts"),
    [
        ("A DOG, 2 CATS!", True),
        ("CLICK {count} OR <b>HERE</b>, SEE https://x.org/a", True),
        ("МАМА", True),
        ("EIN MANN AUF DER STRAßE", True),
        ("R&amp;D", True),
        ("WORLD of Tanks", False),
        ("Dogs", False),
        ("see HTTP://X", False),
        ("see {COUNT}", False),
        ("{count}", False),
        ("12 345", False),
        ("你好", False),
        ("", False),
    ],
)
def test_a_line_is_in_capitals_by_its_text_alone(line, shouts):
    assert is_capitals(line) == shouts


@pytest.mark.parametrize(
    ("line", "has_capitals"),
    [
        ("A Man in the Old House", True),
        ("A Man Within the Old house", False),
        ("THE OLD HOUSE IS RED", True),
        ("Two Old Dogs", False),
        ("2 Old Dogs Play “Ball”", True),
        ("Ein Mann und eine Frau", False),
        ("你好 你好 你好 你好", False),
        ("", False),
    ],
)
def test_a_line_is_in_title_case_by_its_longer_words(line, has_capitals):
    assert is_title(line) == has_capitals


@pytest.mark.parametrize(
    ("line", "usual"),
    [
        (
            "TWO DOGS PLAY IN THE GRASS! THE OLD HOUSE IS RED.",
            "Two dogs play in the grass! The old house is red.",
        ),
        (
            "A BOY {x} EATS <b>AN APPLE</b> IN A GREEN ROOM.",
            "A boy {x} eats <b>an apple</b> in a green room.",
        ),
        ("THE GIRLS SING.  THE CHILDREN RUN", "The girls sing.  The children run"),
        ("THE CHILDREN RUN HOME; IT RAINS.", "The children run home; it rains."),
        ("https://x.org/abc/def/ghi/jkl: THE DOGS", "https://x.org/abc/def/ghi/jkl: the dogs"),
        ("Two Dogs Play In The Grass. A Boy Eats", "Two dogs play in the grass. A boy eats"),
        ("anna eats", "Anna eats"),
        ("two dogs play", "two dogs play"),
        ("XQ ZJ", "XQ ZJ"),
        ("The GIRLS SING.", "The GIRLS SING."),
    ],
)
def test_capitals_are_respelled_where_the_vocabulary_has_few_pieces_for_them(encode, line, usual):
    lines = ["Dogs.", line, ""]
    assert restore_case(lines, encode, "en") == ["Dogs.", usual, ""]


def test_a_word_is_spelled_as_the_vocabulary_has_it():
    known = {"the": 1, "Anna": 1, "NATO": 1, "meets": 1}

    def encode(lines):
        return [[7] * sum(known.get(word, len(word)) for word in line.split()) for line in lines]

    assert restore_case(["THE NATO MEETS ANNA"], encode, "de") == ["The NATO meets Anna"]


def test_i_is_a_capital_in_english_and_has_no_dot_in_turkish(encode):
    def fewer_small(lines):
        return [[7] * sum(1 + 3 * letter.isupper() for letter in line) for line in lines]

    assert restore_case(["SO I'M IN, AND I SEE"], fewer_small, "en") == ["So I'm in, and I see"]
    assert restore_case(["SO I SEE"], fewer_small, "pl") == ["So i see"]
    assert restore_case(["KIZ İYİ", "İYİ"], fewer_small, "tr") == ["Kız iyi", "İyi"]
    assert capitalise("kız iyi", "tr") == "KIZ İYİ"


def test_capitals_spare_what_a_translation_keeps():
    text = "die straße %s sieht {count} und https://x.org/a, bei 12345m."
    assert capitalise(text, "de") == "DIE STRASSE %s SIEHT {count} UND https://x.org/a, BEI 12345M."
    assert capitalise("ასე", "ka") == "ასე"
    assert capitalise("你好 x", "zh") == "你好 X"
