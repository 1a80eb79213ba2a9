"""Blank lines and repetitions."""

from __future__ import annotations

import random

import pytest

from mt.data.text import is_blank, repeats


@pytest.mark.parametrize(
    "line", ["", " ", "\t \r", "\u00a0", "\u200b", "\ufeff", "\x00\x1b", "\u2028\u3000"]
)
def test_spaces_controls_and_format_characters_are_blank(line):
    assert is_blank(line)


@pytest.mark.parametrize("line", ["a", " a", "\u200b.", "日", "\U0001f600", "\ue000"])
def test_a_line_with_anything_visible_is_not_blank(line):
    assert not is_blank(line)


@pytest.mark.parametrize(
    "text",
    ["no no no no no", "ein Haus ein Haus ein Haus ein Haus ein Haus", "!!!!!", "哈哈哈哈哈哈",
     "a man in a red in a red in a red in a red in a red"],
)  # fmt: skip
def test_what_stands_five_times_in_a_row_repeats(text):
    assert repeats(text)


@pytest.mark.parametrize("text", ["", "no no no", "a man and a dog and a cat", "1, 2, 3, 4, 5, 6"])
def test_other_text_does_not(text):
    assert not repeats(text)


def test_a_long_line_takes_no_long_time():
    draw = random.Random(1)
    assert not repeats("".join(draw.choices("abcdefghijklmnopqrstuvwxyz ", k=100_000)))
