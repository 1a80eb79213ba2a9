"""Windows and batches of lines; blank lines; sentences; what is put together again."""

from __future__ import annotations

import random

import pytest

from mt.data.languages import sentence_separator
from mt.data.text import is_blank, split_sentences
from mt.decoding.batching import growing_windows, length_batches
from mt.decoding.text_translator import merge_translations
from mt.decoding.types import Translation


def test_windows_begin_small_grow_and_contain_every_item_in_order():
    found = list(growing_windows(range(20_000)))
    assert [len(each) for each in found] == [64, 1024, 4096, 4096, 4096, 4096, 2528]
    assert [item for each in found for item in each] == list(range(20_000))
    assert list(growing_windows([])) == []


def test_batches_contain_every_row_once_within_the_budget_and_little_padding():
    generator = random.Random(1)
    for _ in range(50):
        lengths = [generator.randint(0, 40) for _ in range(generator.randint(0, 200))]
        found = list(length_batches(lengths, 100))
        assert sorted(row for each in found for row in each) == list(range(len(lengths)))
        for each in found:
            assert len(each) == 1 or len(each) * max(lengths[row] for row in each) <= 100
        longest = [lengths[row] for each in found for row in each]
        assert longest == sorted(lengths, reverse=True)


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
    ("language", "space"), [("de", " "), ("ko", " "), ("zh", ""), ("zh-Hans", ""), ("JA_jp", "")]
)
def test_sentences_are_joined_as_the_language_writes_them(language, space):
    assert sentence_separator(language) == space


def test_parts_joined_are_one_translation_with_all_of_each():
    def part(text, score):
        return Translation(text, score, (text, text), (score, score, score))

    one = Translation("a", -1, ("a", "a"), (-1, -1, -1), (part("a", -1), part("b", -2)))
    two = Translation("x", -3, ("x", "x"), (-3, -3, -3), (part("x", -3), part("y", -5)))
    both = merge_translations([one, two], " ")
    assert (both.text, both.score, both.tokens) == ("a x", -4, ("a", "a", "x", "x"))
    assert both.log_probabilities == (-1, -1, -1, -3, -3, -3)
    assert [(each.text, each.score) for each in both.alternatives] == [("a x", -4), ("b y", -7)]
    assert merge_translations([], " ") == Translation("")
