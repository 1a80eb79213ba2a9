"""Rule: words of very many letters."""

from filter_checks import check


def test_the_longest_word_of_either_side_is_the_value():
    pairs = [("a", "b" * 41), ("a" * 50 + " b", "c"), ("a" * 40, "b " * 90)]
    assert check("long_words", *pairs) == [41, 50, None]


def test_addresses_may_be_long():
    address = "https://example.org/" + "a" * 90
    assert check("long_words", (f"see {address}", "b"), (f"see {address}", "b" * 60)) == [None, 60]


def test_a_language_without_spaces_has_no_words_and_this_is_noted():
    notes = []
    line = "我" * 90
    assert check("long_words", ("a", line), target="zh", notes=notes) == [None]
    assert check("long_words", ("a", line), target="de") == [90]
    assert ["zh" in note for note in notes] == [True]
