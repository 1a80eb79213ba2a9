"""Rule: numbers that the sides do not share."""

import pytest
from filter_checks import check, found

SAME = [
    ("It costs 2,000,000.", "Es kostet 2 Millionen."), ("1,234.50 km", "1.234,5 km"),
    ("On 12.5.2003", "Am 12. Mai 2003"), ("I have three.", "Ich habe 3."), ("No", "Nein"),
    ("Room 007", "Zimmer 7"), ("In 1990", "In 1990"), ("At 5:30 and 7", "Um 5.30 und 7"),
    ("1 000 000 people", "1.000.000 Leute"),
    ("It costs $2.5 million.", "Es kostet 250 Zehntausend."),
]  # fmt: skip
DIFFERENT = [
    ("He was born in 1984.", "Er wurde 1948 geboren."), ("It is 17 km.", "Es sind 71 km."),
    ("He was born in 1984.", "Er wurde geboren."), ("5 of 6 and 7", "8 von 9 und 2"),
]  # fmt: skip


@pytest.mark.parametrize("pair", SAME)
def test_the_same_numbers_pass_however_they_are_written(pair):
    assert found("numbers", pair, pair[::-1]) == [False, False]


@pytest.mark.parametrize("pair", DIFFERENT)
def test_other_numbers_fail(pair):
    assert found("numbers", pair, pair[::-1]) == [True, True]


def test_the_value_is_a_number_that_one_side_lacks():
    assert check("numbers", ("It is 17 km.", "Es sind 71 km.")) == ["17"]


def test_numerals_of_chinese_are_numbers_in_words():
    pairs = [("In 1984 it began.", "一九八四年开始了。"), ("In 1984 it began.", "它开始了。")]
    assert found("numbers", *pairs, target="zh") == [False, True]


def test_digits_of_other_scripts_are_digits_and_a_number_may_be_of_any_length():
    assert found("numbers", ("In 1984.", "في ١٩٨٤."), ("In 1984.", "في ١٩٤٨.")) == [False, True]
    assert found("numbers", ("1" * 5000, "1" * 5000), ("1" * 5000, "2")) == [False, True]
