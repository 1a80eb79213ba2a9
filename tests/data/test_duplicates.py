"""Equality of texts, and sets of hashes."""

import random

import numpy as np
import pytest

from mt.data.duplicates import HashSet, hash_texts, missing_part, normal_form


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("A House!", "a house"), ("ﬁne", "FINE"), ("Straße", "STRASSE"), ("a\u00a0b", "ab"),
        ("“a” – b…", "'a'b"), ("１２", "12"), ("e\u0301", "\u00e9"), ("5 €", "5"),
    ],
)  # fmt: skip
def test_case_spaces_signs_and_compatibility_forms_do_not_count(text, other):
    assert normal_form(text) == normal_form(other)


@pytest.mark.parametrize(("text", "other"), [("की", "का"), ("é", "e"), ("?", "!"), ("a1", "a")])
def test_letters_marks_and_digits_do(text, other):
    assert normal_form(text) != normal_form(other)


def test_a_set_knows_exactly_what_was_added_in_any_chunks():
    draw = random.Random(1)
    numbers = [draw.randrange(3000) for _ in range(6000)]
    known, seen, position = HashSet(), set(), 0
    while position < len(numbers):
        part = numbers[position : position + draw.randint(1, 700)]
        position += len(part)
        expected = [number in seen or seen.add(number) is not None for number in part]
        assert known.add(np.array(part, np.uint64)).tolist() == expected
    assert len(known) == len(seen)
    asked = np.arange(3000, dtype=np.uint64)
    assert known.contains(asked).tolist() == [number in seen for number in range(3000)]


def test_a_set_takes_8_bytes_a_hash():
    known = HashSet()
    for start in range(0, 100_000, 1000):
        known.add(np.arange(start, start + 1000, dtype=np.uint64) * 7919)
    assert sum(run.nbytes for run in known._runs) == 800_000
    assert len(known._runs) < 12


def test_hashes_are_of_the_text_whatever_it_is():
    texts = ["", "a", "b", "a", "\ud800", "日本"]
    hashes = hash_texts(texts).tolist()
    assert hashes[1] == hashes[3]
    assert len(set(hashes)) == 5


def test_a_missing_part_is_of_either_side_and_counted():
    assert missing_part(["a", "b"], ["b", "a"]) is None
    assert missing_part(["a", "a"], ["a"]) == "a"
    assert missing_part([], ["c"]) == "c"
