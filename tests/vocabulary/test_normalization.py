"""What cannot be seen in a source is dropped, and what has a meaning is kept."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt.vocabulary.normalization import drop_invisible, fold_spaces, normalize_source

DROPPED = [
    "\u00ad", "\u200b", "\u200e", "\u200f", "\u202a", "\u202e", "\u2060", "\u2063", "\u2066",
    "\u2069", "\ufeff", "\u061c", "\x00", "\x07", "\x1b", "\x7f", "\x9f", "\u200c", "\u200d",
    "\ufffa", "\U000e0041", "\U000e0001",
]  # fmt: skip
KEPT = [
    "می\u200cخواهم",  # Persian
    "क्\u200dष", "র\u200d্য", "ശ്രീ\u200c", "ක්\u200dර",  # Hindi, Bengali, Malayalam, Sinhala
    "ᠬᠠᠷ\u180eᠠ",  # Mongolian
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u2764\ufe0f\u200d\U0001f525",  # emoji
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # a flag
    "\u0601\u0661", "\u06dd", "\u070f\u0710",  # visible signs
    "e\u0301 ก\u0e49 한", "a\tb",
]  # fmt: skip


@pytest.mark.parametrize("mark", DROPPED, ids=ascii)
@pytest.mark.parametrize("place", range(4))
def test_an_invisible_mark_anywhere_in_a_word_changes_nothing(mark, place):
    line = "the casa"
    marked = [mark + line, f"the{mark} casa", f"the ca{mark}sa", line + mark][place]
    assert normalize_source(marked) == line
    assert normalize_source("Äu" + mark + "ßerst") == "Äußerst"


@pytest.mark.parametrize("text", KEPT, ids=ascii)
def test_what_has_a_meaning_is_kept(text):
    assert drop_invisible(text) == text
    marked = "\u200e".join(text) + "\ufeff"
    assert drop_invisible(marked) in (text, drop_invisible(text))


def test_a_mark_between_a_letter_and_its_accent_does_not_keep_them_apart():
    assert normalize_source("e\u200b\u0301") == "é"


@given(st.text())
def test_it_drops_only_control_and_format_characters_and_is_idempotent(text):
    once = drop_invisible(text)
    assert drop_invisible(once) == once
    rest = iter(text)
    assert all(char in rest for char in once), "the order is kept"
    assert {unicodedata.category(c) for c in set(text) - set(once)} <= {"Cf", "Cc", "Cn"}
    assert normalize_source(normalize_source(text)) == normalize_source(text)


@given(st.text())
def test_format_1_folds_white_space_and_forms_only(text):
    assert fold_spaces(text) == " ".join(unicodedata.normalize("NFKC", text).split())


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_normalising_again_changes_nothing(text):
    once = normalize_source(text)
    assert normalize_source(once) == once
