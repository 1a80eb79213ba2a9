"""Rule: another script than that of the language."""

import pytest
from filter_checks import check

CLEAN = {
    "de": "Ein schönes Haus, 25 € teuer.", "ru": "Это дом № 5.", "zh": "我用 iPhone 写这句话。",
    "ja": "これはペンです。漢字も。", "ko": "안녕하세요 여러분", "el": "Καλημέρα",
    "hi": "यह एक घर है।",
    "ar": "هذا بيت", "he": "זה בית", "th": "นี่คือบ้าน", "sr-Latn": "Ovo je kuća", "sr": "Ово је кућа",
}  # fmt: skip


@pytest.mark.parametrize("code", CLEAN)
def test_a_line_in_its_own_script_passes_and_in_another_one_fails(code):
    latin = "de" in code or "Latn" in code
    other = CLEAN["ru" if latin else "de"]
    pairs = [("House", CLEAN[code]), ("House", other), (CLEAN["ru"], CLEAN[code])]
    values = check("script", *pairs, target=code)
    assert values[0] is None
    assert values[1] == values[2] == 0.0


def test_a_quarter_of_the_letters_is_enough_and_digits_are_of_every_script():
    pairs = [("a где 123", "a"), ("a где? ё 123", "a"), ("123", "?!")]
    assert check("script", *pairs) == [None, 0.2, None]
    assert check("script", *pairs, least=0.5) == [0.25, 0.2, None]


def test_a_language_without_a_known_script_is_spared_and_noted():
    notes = []
    assert check("script", ("Дом", "Дом"), target="xx", notes=notes) == [0.0]
    assert check("script", ("House", "Дом"), target="xx") == [None]
    assert ["xx" in note for note in notes] == [True]
