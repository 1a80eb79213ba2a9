"""Rule: addresses that the sides do not share."""

import pytest
from filter_checks import check, found

SAME = [
    ("See https://example.org/a.", "Siehe http://www.example.org/a/"),
    ("Write to me@example.org!", "Schreib an ME@example.org."),
    ("See (www.example.org)", "看www.example.org。"),
    ("No address. None.", "Keine."),
    ("A @ B // C.", "A @ B // C."),
]
DIFFERENT = [
    ("See https://example.org/a", "Siehe https://example.org/b"),
    ("See https://example.org", "Siehe dort"),
    ("Write", "Schreib an me@example.org"),
    ("www.a.org and www.a.org", "www.a.org"),
]


@pytest.mark.parametrize("pair", SAME)
def test_the_same_addresses_pass_however_they_are_written(pair):
    assert found("urls", pair, pair[::-1]) == [False, False]


@pytest.mark.parametrize("pair", DIFFERENT)
def test_other_addresses_fail(pair):
    assert found("urls", pair, pair[::-1]) == [True, True]


def test_the_value_is_the_address_that_one_side_lacks():
    assert check("urls", ("See https://example.org/a.", "Siehe dort")) == ["example.org/a"]
