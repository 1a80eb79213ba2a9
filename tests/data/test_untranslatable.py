"""Addresses and placeholders are found alike wherever the two sides are compared."""

import pytest

from mt.data.untranslatable import Unit, addresses, find_units, is_lost, join_units, placeholders


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("See https://Example.org/a?b=1.", ["example.org/a?b=1"]),
        ("看www.example.org。", ["example.org"]),
        ("(me@example.org, you@b.co.uk)", ["me@example.org", "you@b.co.uk"]),
        ("No address. A @ B // C, v1.2", []),
    ],
)
def test_addresses(text, found):
    assert addresses(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{0} of {{name}} and ${x}", ["{0}", "{{name}}", "${x}"]),
        ("%s, %(name)s, %1$s", ["%s", "%(name)s", "%1$s"]),
        ('<x id="0"/> and <b>', ['<x id="0"/>']),
        ("50 % so, 100%s, if x < y", []),
    ],
)
def test_placeholders(text, found):
    assert placeholders(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("See https://x.org/a_b?c=1, or me@x.org!", ["https://x.org/a_b?c=1", "me@x.org"]),
        ("看https://x.org/a网站。", ["https://x.org/a"]),
        ("{count}s of {0}{1}, %s, 50 % so", ["{count}s", "{0}", "{1}", "%s"]),
        ("<b>Hello</b> world<br/>, a < b > c", ["<b>", "</b>", "<br/>"]),
        ("<0>Hello</0> <1/>", ["<0>", "</0>", "<1/>"]),
        ("@user, #topic, x86_64 and __name__", ["@user", "#topic", "x86_64", "__name__"]),
        ("a @ b # c _, #1, C#, ____ and _really_ or I <3 you ->", []),
        ("1999, 12,345.67, B12345, 10:30", ["1999", "12,345.67", "B12345", "10:30"]),
        ("on 2020-03-04, or 03/04/20", ["2020-03-04"]),
        ("１２３ und १२३", ["１２３", "१२३"]),
        ("7, 42, 100 or 2,000,000", []),
        ("- Dogs - and cats", ["-"]),
        (" • Dogs", ["•"]),
        ("## Dogs #", ["##"]),
        ("-Dogs", []),
        ("2. Dogs 3. cats", ["2."]),
        ("(12) Dogs", ["(12)"]),
        ("A&nbsp;B &#160; R&D;", ["&nbsp;", "&#160;"]),
        ("/usr/bin, ~/a/b.txt or C:\\temp\\x.txt.", ["/usr/bin", "~/a/b.txt", "C:\\temp\\x.txt"]),
        ("and/or/not, 1/2/3, a / b / c", []),
        ("-", []),
        ("Nothing at all.", []),
        ("", []),
    ],
)
def test_what_a_translation_keeps(text, found):
    units = find_units(text)
    assert [text[unit.start : unit.stop] for unit in units] == found
    assert units == sorted(units)


@pytest.mark.parametrize(
    ("text", "translation", "lost"),
    [
        ("See {0}", "Siehe {0}", False),
        ("See {0}", "Siehe {1}", True),
        ("in 1,234.5 m", "in 1.234,5 m", False),
        ("in 1250000", "1,25 Millionen", False),
        ("in 1999", "in 1998", True),
        ("1. Mai", "May 1", False),
        ("10. Dogs", "Dogs", True),
        ("in 1999", "一九九九年", False),
        ("in 1999", "१९९९ में", False),
    ],
)
def test_what_is_lost(text, translation, lost):
    (unit,) = find_units(text)
    assert is_lost(text, unit, translation) == lost


def test_parts_that_overlap_are_one():
    assert join_units([Unit(5, 9), Unit(0, 3), Unit(2, 4, "1"), Unit(6, 7)]) == [
        Unit(0, 4), Unit(5, 9),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "part",
    ["1", "1,", "_", "a_", "@", "{", "<a", "%(a", "a-", "www.", "x1234", "&a", "/a", "C:\\", "1. "],
)
def test_an_odd_line_takes_linear_time(part):
    assert len(find_units(part * (200_000 // len(part)))) <= 40_000
