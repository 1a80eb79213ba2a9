"""Rule: placeholders that the sides do not share."""

import pytest
from filter_checks import check, found

MARKS = ["{0}", "{name}", "{{name}}", "${x}", "%s", "%d", "%1$s", "%(name)s", '<x id="0"/>', "{}"]


@pytest.mark.parametrize("mark", MARKS)
def test_a_placeholder_must_be_on_both_sides_as_often(mark):
    both, none = f"Open {mark} now", "Open it now"
    pairs = [(both, both), (both, none), (none, both), (f"{both} {mark}", both)]
    assert found("placeholders", *pairs) == [False, True, True, True]
    assert check("placeholders", (both, none)) == [mark]


@pytest.mark.parametrize("line", ["50 % so", "100%s", "20 %der", "a % sign", "if x < y", "100%"])
def test_percentages_and_signs_are_none(line):
    assert found("placeholders", (line, "other")) == [False]


def test_their_order_is_free():
    assert found("placeholders", ("{0} of {1}", "{1} von {0}"), ("%s {0}", "{0} %s")) == [False] * 2
