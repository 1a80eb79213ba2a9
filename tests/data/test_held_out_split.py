"""What is held out occurs nowhere else, and nothing is lost."""

from itertools import chain

import pytest
from prepared_corpora import GOOD, recipe_of, write_pairs

from mt.data.duplicates import normal_form
from mt.data.held_out_split import NAMES, split_corpus
from mt.errors import DataError

DOUBTFUL = [("a <br> b", "c <br> d"), ("", "x"), ("The House sees the tree", "Anders gesagt.")]
REPEATED = [GOOD[7], (GOOD[8][0].upper(), "Ganz anders."), ("Wholly other.", GOOD[9][1].lower())]


def split(folder, pairs, **data):
    write_pairs(folder, "all", pairs)
    out = folder / "out"
    out.mkdir()
    recipe = recipe_of(folder, train=("all",), clean="default", **data)
    facts = split_corpus(recipe.data, out, "all.en and all.de", lambda line: None)
    parts = {}
    for name in NAMES:
        sides = [(out / f"{name}.{code}").read_text().split("\n")[:-1] for code in ("en", "de")]
        parts[name] = list(zip(*sides, strict=True))
    return facts, parts


def test_every_pair_is_in_one_part_and_in_order(folder):
    pairs = [*GOOD[:300], *DOUBTFUL, *REPEATED]
    facts, parts = split(folder, pairs)
    assert (facts.pairs, facts.held_out) == (306, 15)
    assert sorted(chain(*parts.values())) == sorted(pairs)
    assert len(parts["valid"]) == len(parts["test"]) == 15
    for part in parts.values():
        places = [pairs.index(pair) for pair in part if pairs.count(pair) == 1]
        assert places == sorted(places)


def test_no_side_of_a_held_out_pair_is_anywhere_else(folder):
    _, parts = split(folder, [*GOOD[:300], *REPEATED] * 1 + [GOOD[4]])
    for name in ("valid", "test"):
        others = [pair for other in NAMES if other != name for pair in parts[other]]
        for side in (0, 1):
            mine = {normal_form(pair[side]) for pair in parts[name]}
            assert not mine & {normal_form(pair[side]) for pair in others}


def test_no_doubtful_pair_is_held_out(folder):
    _, parts = split(folder, DOUBTFUL[:2] * 1 + GOOD[:100])
    assert set(DOUBTFUL[:2]) <= set(parts["train"])


def test_facts_are_those_of_the_text(folder):
    facts, _ = split(folder, [*GOOD[:200], ("a <br> b", "c <br> d"), GOOD[0]])
    assert facts.suspects == {"markup": 1, "duplicates": 1}
    assert facts.kept == 202 - 2 - 20
    assert facts.words == (pytest.approx(5, abs=0.1), pytest.approx(6, abs=0.1))
    assert facts.longest in (6, 7)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [(GOOD[:99], "too few pairs to learn from: 99"), (GOOD[:1] * 120, "occur once")],
)
def test_too_little_text_is_refused(folder, pairs, message):
    with pytest.raises(DataError, match=message) as caught:
        split(folder, pairs)
    assert "all.en and all.de:" in str(caught.value)
    assert caught.value.exit_code == 3
