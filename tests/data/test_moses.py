"""The two sides of a corpus in an archive are found by language, and are of one length."""

from __future__ import annotations

import gzip

import pytest
from made_archives import zipped

from mt.config.schema import Languages
from mt.data.moses import read_sides
from mt.errors import DataError

EN, DE = b"A house.\nA bear.\n", "Ein Haus.\nEin Bär.\n".encode()
PAIRS = [("A house.", "Ein Haus."), ("A bear.", "Ein Bär.")]


def pairs(path, source="en", target="de", members=(None, None)):
    direction = Languages(source=source, target=target)
    return [(p.source, p.target) for p in read_sides(path, direction, "name", members)]


@pytest.mark.parametrize("names", [("x.de-en.de", "x.de-en.en"), ("x.deu", "x.en_GB")])
@pytest.mark.parametrize("order", [1, -1])
def test_sides_are_found_by_language_in_any_order(tmp_path, names, order):
    both = [(names[0], DE), (names[1], EN)][::order]
    path = zipped(tmp_path / "a", [("README", b"x"), *both, ("LICENSE", b"y")])
    assert pairs(path) == PAIRS
    assert pairs(path, "de", "en") == [(b, a) for a, b in PAIRS]


def test_members_can_be_named_and_compressed(tmp_path):
    path = zipped(tmp_path / "a", {"a.en.gz": gzip.compress(EN), "b.de.gz": gzip.compress(DE)})
    assert pairs(path) == PAIRS
    assert pairs(path, members=("a.en.gz", "b.de.gz")) == PAIRS


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ({"x.en": EN}, "no members end in .de"),
        ({"x.en": EN, "x.fr": DE}, "no members end in .de"),
        ({"x.en": EN, "x.de": DE, "y.de": DE}, "2 members end in .de; there are: x.de, y.de"),
        ({"x.en": EN, "x.de": DE + b"z\n"}, "2 lines against 3"), ({}, "no members end in .en"),
    ],
)  # fmt: skip
def test_what_is_missing_too_much_or_too_long_is_named(tmp_path, members, what):
    with pytest.raises(DataError) as error:
        pairs(zipped(tmp_path / "a", members))
    assert error.value.exit_code == 3
    assert what in str(error.value)
    assert "name" in str(error.value)
