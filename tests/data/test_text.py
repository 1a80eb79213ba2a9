"""Blank lines, the sentences of a line, repetitions."""

from __future__ import annotations

import random

import pytest

from mt.data.text import halve, is_blank, repeats, split_sentences


@pytest.mark.parametrize(
    "line", ["", " ", "\t \r", "\u00a0", "\u200b", "\ufeff", "\x00\x1b", "\u2028\u3000"]
)
def test_spaces_controls_and_format_characters_are_blank(line):
    assert is_blank(line)


@pytest.mark.parametrize("line", ["a", " a", "\u200b.", "日", "\U0001f600", "\ue000"])
def test_a_line_with_anything_visible_is_not_blank(line):
    assert not is_blank(line)


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("A b. C d! E", ["A b.", " C d!", " E"]),
        ("3.14 is pi", ["3.14 is pi"]),
        ('He said "No." Then?', ['He said "No."', " Then?"]),
        ("你好。他说：“好！”再见？好", ["你好。", "他说：“好！”", "再见？", "好"]),
        ("。。。！", ["。。。！"]),
        ("", []),
    ],
)
def test_sentences_are_split_and_nothing_is_lost(line, parts):
    assert split_sentences(line) == parts
    assert "".join(parts) == line


def test_an_odd_line_of_a_megabyte_is_split_in_linear_time():
    for line in ("." * 1_000_000, ". " * 500_000, "。”" * 500_000, '."' * 500_000 + " "):
        assert "".join(split_sentences(line)) == line


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a man, who runs, and a dog", ["a man, who runs,", " and a dog"]),
        ("a, man who runs and has a dog", ["a, man who runs", " and has a dog"]),
        ("一个男人在跑步，还有一只狗在跑", ["一个男人在跑步，", "还有一只狗在跑"]),
        ("一个男人在跑步", ["一个男", "人在跑步"]),
        ("คนวิ่ง", ["คน", "วิ่ง"]),
        ("x" * 9 + " y", ["x" * 9, " y"]),
        ("x" * 9, ["x" * 9]),
        (" ", [" "]),
        ("", [""]),
    ],
)
def test_a_text_is_halved_at_a_clause_else_a_word_else_a_letter(text, parts):
    assert halve(text) == parts
    assert "".join(parts) == text


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
