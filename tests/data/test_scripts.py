"""Scripts of languages and of characters."""

import pytest

from mt.data.scripts import (
    letters_of,
    plain_language,
    script_of,
    script_share,
    word_counter,
    writes_spaces,
)


@pytest.mark.parametrize(
    ("code", "plain", "script"),
    [
        ("en", "en", "Latn"), ("deu", "de", "Latn"), ("pt-BR", "pt", "Latn"), ("zh", "zh", "Hans"),
        ("zh-TW", "zh", "Hant"), ("sr", "sr", "Cyrl"), ("sr-Latn", "sr", "Latn"),
        ("ja", "ja", "Jpan"), ("hi", "hi", "Deva"), ("xx", None, None), ("no code", None, None),
        ("und", None, None),
    ],
)  # fmt: skip
def test_codes_have_a_language_and_a_script_or_neither(code, plain, script):
    assert plain_language(code) == plain
    assert script_of(code) == script


def test_the_share_is_of_letters_alone():
    latin = letters_of("Latn")
    assert script_share("abc 123 -- где", latin) == 0.5
    assert script_share("123 ?!", latin) == 1.0
    assert script_share("où est-ce ?", latin) == 1.0


def test_a_script_that_is_unknown_has_no_letters():
    assert letters_of("Qaaa") is None


@pytest.mark.parametrize("code", ["zh", "ja", "th", "my", "lo", "km", "zh-Hant", "yue"])
def test_languages_without_spaces(code):
    assert not writes_spaces(code)


@pytest.mark.parametrize("code", ["en", "ko", "vi", "ar", "hi", "xx"])
def test_languages_with_spaces(code):
    assert writes_spaces(code)


def test_words_are_between_spaces_or_two_characters():
    assert [*map(word_counter("en"), (" a  b c ", ""))] == [3, 0]
    assert [*map(word_counter("zh"), ("你好 吗", ""))] == [2, 0]
