"""Rule: currencies that differ."""

from filter_checks import check


def test_two_different_currencies_fail():
    pairs = [("It costs $5.", "Es kostet 5 €."), ("5 EUR", "5 GBP"), ("¥500", "500 USD")]
    assert check("currency", *pairs) == ["dollar, euro", "euro, pound", "yen or yuan, dollar"]


def test_the_same_currency_or_one_in_words_passes():
    pairs = [
        ("It costs $5.", "Es kostet 5 USD."), ("It costs $5.", "Es kostet 5 Dollar."),
        ("$5 or €5", "5 €"), ("Nothing", "Nichts"), ("EUROPE", "5 $"),
    ]  # fmt: skip
    assert check("currency", *pairs) == [None] * 5
