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
        ("▁x <0xE6> <0x97> <0xA5> y ▁<0x41> <0xC3> <0xBC>", ["x日y", "<0x41>ü"]),
        ("▁ <0xE6> <0x97> <0xE6> <0x97> <0xA5> <0x0A>", ["<0xE6><0x97>日<0x0A>"]),
        ("Two▁ do gs▁ play .▁", ["Two", "dogs", "play."]),
        ("Two ▁ do g s▁ play ▁", ["Two", "dogs", "play"]),
        ("Two ▁ dogs ▁", ["Two", "dogs"]),
        ("Two ▁ ▁ dogs ▁ ▁", ["Two", "dogs"]),
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


def test_pieces_are_shown_as_text():
    pieces = ["▁a", "b", "<0xE6>", "<0x97>", "<0xA5>", "▁", "<0xE6>"]
    assert word_alignment.display_pieces(pieces) == ["a", "·b", "日", "·", "·", "␣", "<0xE6>"]
    ends = ["a", "b▁", "c▁", "▁"]
    assert word_alignment.display_pieces(ends) == ["a", "·b", "c", "␣"]
