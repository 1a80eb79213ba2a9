"""Rule: targets that repeat their source."""

from filter_checks import check


def test_case_spaces_and_punctuation_do_not_make_a_translation():
    pairs = [
        ("This is a house.", "This is a house."), ("This is a house.", "this  is a House!"),
        ("This is a house.", "Das ist ein Haus."),
    ]  # fmt: skip
    assert check("copies", *pairs) == ["identical", "alike", None]


def test_names_and_other_short_lines_are_spared():
    assert check("copies", ("New York.", "New York."), ("Tom", "Tom")) == [None, None]
    assert check("copies", ("New York.", "New York."), spared=1) == ["identical"]


def test_a_source_without_spaces_is_measured_in_characters():
    assert check("copies", ("你好吗朋友", "你好吗朋友"), source="zh") == ["identical"]
