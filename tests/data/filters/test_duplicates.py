"""Rule: pairs that came before."""

import pytest
from filter_checks import build, check

PAIRS = [("A house.", "Ein Haus."), ("a House!", "ein haus"), ("A house.", "Das Haus."),
         ("A house.", "Ein Haus."), ("The house.", "Ein Haus.")]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({}, [1, 3]),
        ({"form": "exact"}, [3]),
        ({"sides": "source"}, [1, 2, 3]),
        ({"sides": "target"}, [1, 3, 4]),
        ({"sides": "target", "form": "exact"}, [3, 4]),
    ],
)
def test_all_but_the_first_are_found(settings, rows):
    values = check("duplicates", *PAIRS, **settings)
    assert [row for row, value in enumerate(values) if value is not None] == rows


def test_chunks_are_one_corpus():
    rule = build("duplicates")
    whole = check("duplicates", *PAIRS)
    parts = [rule.check([source], [target])[0] for source, target in PAIRS]
    assert parts == whole


def test_marks_of_indic_vowels_are_no_punctuation():
    assert check("duplicates", ("a", "की"), ("a", "का")) == [None, None]


def test_lines_of_punctuation_alone_differ():
    assert check("duplicates", ("?", "?"), ("!", "!"), ("?", "?")) == [None, None, "pair"]
