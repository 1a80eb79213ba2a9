"""Rule: lines of digits and signs."""

from filter_checks import check


def test_the_share_of_letters_of_any_script_is_the_value():
    pairs = [
        ("1 2 3 4 5 + a - 8", "a"), ("Это просто.", "हिन्दी में लिखा है।"), ("12:30:45 Uhr 5", "b"),
    ]  # fmt: skip
    assert check("alphabet", *pairs) == [0.111, None, 0.25]


def test_spaces_do_not_count_and_half_is_enough():
    assert check("alphabet", ("a 1 b 2 c 3 d 4 e 5", "a")) == [None]
    assert check("alphabet", ("a 1 b 2 c 3 d 4 e 5 6", "a")) == [0.455]


def test_short_sides_are_spared():
    assert check("alphabet", ("5:30.", "17:30."), ("5:30 - 10:45 h", "x")) == [None, 0.091]
