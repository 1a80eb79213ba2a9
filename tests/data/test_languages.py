"""Language codes of any usual form, and how languages write."""

from __future__ import annotations

import pytest

from mt.data import languages
from mt.data.languages import base_code, language_distance, match_languages, sentence_separator


@pytest.mark.parametrize(
    ("language", "space"),
    [
        ("de", " "),
        ("ko", " "),
        ("zh", ""),
        ("zh-Hans", ""),
        ("JA_jp", ""),
        ("jpn", ""),
        ("zho", ""),
    ],
)
def test_sentences_are_joined_as_the_language_writes_them(language, space):
    assert sentence_separator(language) == space


@pytest.mark.parametrize(
    ("codes", "base"),
    [
        (["de", "deu", "ger", "de_DE", "de-AT", "deu_Latn", "DE", " de "], "de"),
        (["zh", "zho", "chi", "zh-Hans", "zho_Hans", "zh_CN", "zh-TW", "zho_Hant"], "zh"),
        (["yue", "yue_Hant"], "yue"), (["pt_BR", "por"], "pt"), (["hsb"], "hsb"),
        (["Klingonese"], "klingonese"), (["x1"], "x1"), ([""], ""),
    ],
)  # fmt: skip
def test_one_language_has_one_base_code(codes, base):
    assert {base_code(code) for code in codes} == {base}


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ("de", "deu_Latn", 0), ("de", "de_DE", 1), ("de_AT", "de_DE", None), ("pt", "pt_BR", 1),
        ("pt_BR", "por-br", 0), ("zh", "zh_CN", 1), ("zh-Hans", "zh_CN", 1), ("zho_Hans", "zh", 0),
        ("zh", "zh_TW", None), ("zh-Hant", "zh_TW", 1), ("sr", "sr_Latn", None),
        ("sr", "sr_Cyrl", 0),
        ("en", "eng", 0), ("en", "ang", None), ("no such code", "en", None),
        ("klingonese", "Klingonese", 0),
    ],
)  # fmt: skip
def test_codes_mean_one_language_or_not(one, other, distance):
    assert language_distance(one, other) == distance
    assert language_distance(other, one) == distance


def test_a_code_is_found_in_another_form():
    assert languages.find_code("deu", ["en", "de"]) == "de"
    assert languages.find_code("pt", ["pt_BR", "pt"]) == "pt"
    assert languages.find_code("pt", ["pt_BR", "pt_PT"]) == "pt"
    assert languages.find_code("fr", ["en", "de"]) == "fr"


def test_the_nearest_codes_are_chosen():
    assert match_languages("pt", ["pt_BR", "en", "por"]) == ["por"]
    assert match_languages("pt", ["pt_BR", "en", "pt_PT"]) == ["pt_BR", "pt_PT"]
    assert match_languages("fr", ["pt_BR", "en"]) == []


@pytest.mark.parametrize(
    ("pair", "codes"),
    [
        ("de-en", ("de", "en")), ("zh-Hans-en", ("zh-Hans", "en")), ("pt_BR-en", ("pt_BR", "en")),
        ("en-zh_Hant", ("en", "zh_Hant")), ("deu-eng", ("deu", "eng")), ("de", None), ("", None),
        ("de-", None), ("-", None), ("de en", None), ("a-b-c-d", None),
    ],
)  # fmt: skip
def test_a_pair_is_two_codes(pair, codes):
    assert languages.split_pair(pair) == codes
