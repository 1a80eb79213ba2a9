"""Rule: too short or too long."""

import pytest
from filter_checks import check, found
from pydantic import ValidationError


def test_the_longer_or_the_shorter_side_decides_and_its_words_are_the_value():
    pairs = [("a b c", "d e"), ("a", "d e"), ("a b", "d e f g"), ("a b c d", "e f g h i")]
    assert check("length", *pairs, fewest=2, most=3) == [None, 1, 4, 4]


def test_the_bounds_themselves_are_allowed():
    assert found("length", ("a", "b"), ("a " * 150, "b"), ("a " * 151, "b")) == [False, False, True]


def test_two_characters_are_a_word_where_no_spaces_are_written():
    pairs = [("a b", "你好世界"), ("a b", "你好 世界啊"), ("a b", "你")]
    assert check("length", *pairs, target="zh", fewest=1, most=2) == [None, 3, None]


def test_bounds_that_leave_nothing_are_refused():
    with pytest.raises(ValidationError, match="fewest"):
        check("length", ("a", "b"), fewest=3, most=2)
