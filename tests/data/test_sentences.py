"""Sentences of a line, halves of a sentence, and which lines are usual."""

from __future__ import annotations

import pytest

from mt.data.sentences import UsualLengths, halve, split_sentences, usual_lengths


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("An ox. Two pigs! I go", ["An ox.", " Two pigs!", " I go"]),
        ("Oh! An ox. 12345", ["Oh! An ox. 12345"]),
        ("An ox. {{x}} __y__", ["An ox.", " {{x}} __y__"]),
        ("So am I. You see?", ["So am I.", " You see?"]),
        ("3.14 is pi", ["3.14 is pi"]),
        ('He said "No." And then?', ['He said "No."', " And then?"]),
        ("你好。他说：“好！”再见？好", ["你好。", "他说：“好！”", "再见？", "好"]),
        ("。。。！", ["。。。！"]),
        ("Mr. Smith met Dr. B. Jones. He left.", ["Mr. Smith met Dr. B. Jones.", " He left."]),
        ("Am 3. Oktober ist frei. Ja, ja.", ["Am 3. Oktober ist frei.", " Ja, ja."]),
        ("1. Open it. 2. Close it. 3.", ["1. Open it.", " 2. Close it. 3."]),
        ("Am 3. 10. 1990 begann es. 12. Mai", ["Am 3. 10. 1990 begann es.", " 12. Mai"]),
        ("It was in 1999. Then it ended.", ["It was in 1999.", " Then it ended."]),
        (
            "At 3 p.m. in the park. Run now! he said.",
            ["At 3 p.m. in the park.", " Run now! he said."],
        ),
        ("वह आया। वह गई।", ["वह आया।", " वह गई।"]),
        ("هل جاء؟ نعم جاء.", ["هل جاء؟", " نعم جاء."]),
        ("Он пришёл. Она ушла.", ["Он пришёл.", " Она ушла."]),
        ("", []),
    ],
)
def test_sentences_are_split_and_nothing_is_lost(line, parts):
    assert split_sentences(line) == parts
    assert "".join(parts) == line


def test_an_odd_line_of_a_megabyte_is_split_in_linear_time():
    for line in (
        "." * 1_000_000,
        ". " * 500_000,
        "。”" * 500_000,
        "a. " * 300_000,
        '."' * 500_000 + " ",
    ):
        assert "".join(split_sentences(line)) == line


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a man, who runs, and a dog", ["a man, who runs,", " and a dog"]),
        ("a, man who runs and has a dog", ["a, man who runs", " and has a dog"]),
        ("一个男人在跑步，还有一只狗在跑", ["一个男人在跑步，", "还有一只狗在跑"]),
        ("一个男人在跑步", ["一个男", "人在跑步"]),
        ("คนวิ่ง", ["คน", "วิ่ง"]),
        ("x" * 9 + " y", ["x" * 9, " y"]),
        ("x" * 9, ["x" * 9]),
        (" ", [" "]),
        ("강아지가", ["강아지가"]),
        ("", [""]),
    ],
)
def test_a_text_is_halved_at_a_clause_else_a_word_else_a_letter(text, parts):
    assert halve(text) == parts
    assert "".join(parts) == text


def test_a_megabyte_is_halved_to_words_in_a_bounded_number_of_steps():
    """Words of ever larger sizes are the worst case."""
    text = " ".join("x" * 2**power for power in range(18))
    todo, steps = [text], 0
    while todo:
        steps += 1
        parts = halve(todo.pop())
        todo += parts if len(parts) > 1 else []
    assert steps < 100


ONE, TWO = "A dog.", "A dog. A cat."


@pytest.mark.parametrize(
    ("lines", "sentence", "several"),
    [
        ([(ONE, 3)] * 1000, 3, 0),
        ([(ONE, 3)] * 991 + [(TWO, 6)] * 9, 6, 0),
        ([(ONE, 3)] * 990 + [(TWO, 6)] * 10, 6, 6),
        ([(ONE, 30)] * 900 + [(TWO, 6 + i) for i in range(100)], 105, 96),
        ([(ONE, i) for i in range(2000)], 1998, 0),
        ([(TWO, 6)] * 10, 6, 6),
        ([], 0, 0),
    ],
)
def test_a_length_is_usual_up_to_the_one_that_some_lines_have_or_exceed(lines, sentence, several):
    found = usual_lengths(*zip(*lines, strict=True)) if lines else usual_lengths([], [])
    assert (found.sentence, found.several) == (sentence, several)
    assert found.shortest == min(sentence, several)
    assert UsualLengths.of({"usual_lengths": found.model_dump()}) == found


def test_a_clause_alone_may_be_asked_for():
    assert halve("a man who runs and a dog", at_words=False) == ["a man who runs and a dog"]
    assert halve("a man who runs, and a dog", at_words=False) == ["a man who runs,", " and a dog"]
