"""Rule: the same words again and again."""

import time

import pytest
from filter_checks import check

LOOPS = [
    "the house the house the house the house", "He said no way no way no way no way.",
    "I am, I am, I am, I am, I am.", "我们去我们去我们去我们去",
]  # fmt: skip
SOUND = [
    "No, no, no!", "Ha ha ha ha", "the dog and the cat and the bird and the fish",
    "It was long, long ago.", "A rose is a rose is a rose.",
]  # fmt: skip


@pytest.mark.parametrize("line", LOOPS)
def test_a_loop_is_found_on_either_side(line):
    assert None not in check("repetition", (line, "x"), ("x", line))


@pytest.mark.parametrize("line", SOUND)
def test_what_people_repeat_is_kept(line):
    assert check("repetition", (line, "x"), ("x", line)) == [None, None]


def test_the_value_is_the_piece_and_the_bounds_can_be_chosen():
    line = "well well well"
    assert check("repetition", (line, "x")) == [None]
    assert check("repetition", (line, "x"), times=3) == ["well"]
    assert check("repetition", (line, "x"), times=3, shortest=5) == [None]


def test_a_long_line_takes_linear_time():
    line = "abc " * 20 + "".join(chr(0x4E00 + i % 5000) for i in range(100_000))
    began = time.process_time()
    check("repetition", (line[80:], "x"))
    assert time.process_time() - began < 10
