"""Rule: leftovers of HTML and of wikis."""

import pytest
from filter_checks import check, found

DIRT = [
    "Hello<br>world", "a </p> b", "<b>bold</b>", 'see <a href="x">this</a>', "<br/>", "Tom&nbsp;1",
    "R&#39;s", "fish &amp; chips", "see [[House]]", "a {{cite web|url=x}} b", "'''Bold''' text",
    "== History ==", "known[12] since", "<!-- hidden -->", "{| class=wikitable",
]  # fmt: skip
SOUND = [
    "I <3 you", "a < b and b > c", "AT&T; and Q&A", "He said 'no'.", "2 + 2 = 4", "[sic] (see a)",
    "5 > 3 & 2 < 4", "{0} files", "{{name}} logged in", '<x id="0"/>Open<x id="1"/>', "x==y",
    "x -> y", "Wait...", "a|b",
]  # fmt: skip


@pytest.mark.parametrize("line", DIRT)
def test_a_leftover_is_found_on_either_side(line):
    assert found("markup", (line, "x"), ("x", line)) == [True, True]


@pytest.mark.parametrize("line", SOUND)
def test_what_only_looks_like_it_is_kept(line):
    assert found("markup", (line, "x"), ("x", line)) == [False, False]


def test_the_value_is_what_was_found():
    assert check("markup", ("Hello<br>world", "x"), ("x", "a &amp; b")) == ["<br>", "&amp;"]
