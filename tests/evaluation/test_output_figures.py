"""Copies, repetitions and lengths of translations."""

import random

import pytest

from mt.evaluation.output_figures import output_figures, repeats


@pytest.mark.parametrize(
    "text",
    ["no no no no no", "ein Haus ein Haus ein Haus ein Haus ein Haus", "!!!!!", "哈哈哈哈哈哈",
     "a man in a red in a red in a red in a red in a red"],
)  # fmt: skip
def test_what_stands_five_times_in_a_row_repeats(text):
    assert repeats(text)


@pytest.mark.parametrize("text", ["", "no no no", "a man and a dog and a cat", "1, 2, 3, 4, 5, 6"])
def test_other_text_does_not(text):
    assert not repeats(text)


def test_a_long_line_takes_no_long_time():
    draw = random.Random(1)
    assert not repeats("".join(draw.choices("abcdefghijklmnopqrstuvwxyz ", k=100_000)))


def test_figures_are_shares_and_a_ratio():
    sources = ["one two three four", "ok ok", "a b c d", "x"]
    hypotheses = ["one two three four", "ok ok", "ha ha ha ha ha ha", "haha " * 5]
    references = ["eins zwei drei vier", "ok ok", "a", "haha " * 5]
    found = output_figures(sources, hypotheses, references)
    assert found["copied"] == 1 / 4  # two words may be a name
    assert found["repeated"] == 1 / 4  # the reference of the last repeats itself as well
    assert found["length_ratio"] == sum(map(len, hypotheses)) / sum(map(len, references))
    assert output_figures([], [], []) == {"copied": 0.0, "repeated": 0.0, "length_ratio": 0.0}
