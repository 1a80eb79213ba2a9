"""Blank lines and the sentences of a line."""

from __future__ import annotations

import pytest

from mt.data.text import is_blank, split_sentences


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
