"""How languages write: with or without spaces between sentences."""

from __future__ import annotations

import pytest

from mt.data.languages import sentence_separator


@pytest.mark.parametrize(
    ("language", "space"), [("de", " "), ("ko", " "), ("zh", ""), ("zh-Hans", ""), ("JA_jp", "")]
)
def test_sentences_are_joined_as_the_language_writes_them(language, space):
    assert sentence_separator(language) == space
