"""Addresses and placeholders are found alike wherever the two sides are compared."""

import pytest

from mt.data.untranslatable import addresses, placeholders


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
