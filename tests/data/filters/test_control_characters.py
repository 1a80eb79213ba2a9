"""Rule: characters that no text has."""

import pytest
from filter_checks import check


@pytest.mark.parametrize(
    "character",
    ["\0", "\x07", "\r", "\x1b", "\x7f", "\x85", "\ufffd", "\ue000", "\u202e", chr(0xD800)],
)
def test_each_is_found_on_either_side_and_named(character):
    name = f"U+{ord(character):04X}"
    assert check("control_characters", (f"a{character}b", "x"), ("x", character)) == [name, name]


@pytest.mark.parametrize(
    "text", ["a\tb", "\u00a0", "e\u0301", "\u200b\u200d\u200f", "\u2028", "😀", "\u00ad", "日本"]
)
def test_text_is_kept(text):
    assert check("control_characters", (text, text)) == [None]
