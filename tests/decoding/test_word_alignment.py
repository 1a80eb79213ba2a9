"""Links between words from weights between pieces."""

from __future__ import annotations

import pytest

from mt.decoding import word_alignment
from mt.decoding.types import Translation


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ("▁Two ▁dog s ▁play .", ["Two", "dogs", "play."]),
        ("▁ 我 喜欢 GP U 。", ["我", "喜欢", "GPU", "。"]),
        ("▁我 们 ▁go", ["我", "们", "go"]),
        ("already cut words .", ["already", "cut", "words", "."]),
        ("▁x <0xE6> <0x97>", ["x<0xE6><0x97>"]),
        ("▁ ▁b", ["b"]),
        ("▁a ▁", ["a"]),
        ("", []),
    ],
)
def test_words_are_what_is_between_spaces(pieces, expected):
    cut = pieces.split(" ") if pieces else []
    found = word_alignment.to_words(cut)
    assert [word for word, _ in found] == expected
    assert [i for _, part in found for i in part] == list(range(len(cut)))


def test_a_word_that_attended_to_the_end_alone_has_no_link():
    found = Translation("a b", 0.0, ("▁a", "▁b"), (), (), ("▁x", "▁y"), ((0.0, 0.0), (0.0, 0.4)))
    assert word_alignment.format_pharaoh(found) == "1-1"
