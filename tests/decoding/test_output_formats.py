"""How translations and scores are written: columns, n-best lists, JSON, alignments, words."""

from __future__ import annotations

import json
import math

import pytest

from mt.decoding import output_formats
from mt.decoding.types import Score, Translation
from mt.errors import ConfigError

FIRST = Translation(
    text="Zwei Hunde.",
    score=-0.5,
    tokens=("▁Zwei", "▁Hund", "e", "."),
    log_probabilities=(-0.25, -0.25, -0.5, -0.5, -0.5),
    source_tokens=("▁Two", "▁dog", "s", "▁run"),
    alignment=((0.9, 0.1, 0.0, 0.0), (0.1, 0.2, 0.3, 0.4), (0.0, 0.6, 0.4, 0.0), (0, 0, 0.1, 0.9)),
)

OTHER = Translation("a ||| b\tc", -1.0, ("▁a",), (-1.0, -1.0), alignment=((1.0,),))

BOTH = Translation(
    **{f: getattr(FIRST, f) for f in FIRST.__slots__ if f != "alternatives"},
    alternatives=(FIRST, OTHER),
)


def test_text_is_the_translation_alone():
    assert output_formats.make_formatter(None)(3, "Two dogs run", FIRST) == "Zwei Hunde."


def test_columns_come_as_score_translation_alignment_and_never_contain_a_tab():
    rendering = output_formats.make_formatter("text", scores=True, alignments=True)
    assert rendering(0, "", FIRST) == "-0.500000\tZwei Hunde.\t0-0 2-1"
    for scores, alignments in ((True, False), (False, True), (True, True)):
        line = output_formats.make_formatter("text", 1, scores, alignments)(0, "", OTHER)
        assert line.count("\t") == scores + alignments


def test_an_n_best_list_has_a_line_a_hypothesis_of_four_fields_or_five():
    lines = output_formats.make_formatter(None, n_best=2)(7, "", BOTH).split("\n")
    assert lines == [
        "7 ||| Zwei Hunde. ||| F0= -2.000000 ||| -0.500000",
        "7 ||| a | | | b\tc ||| F0= -2.000000 ||| -1.000000",
    ]
    aligned = output_formats.make_formatter("moses", 2, alignments=True)(7, "", BOTH).split("\n")
    assert [line.split(" ||| ")[4:] for line in aligned] == [["0-0 2-1"], [""]]


def test_a_blank_line_has_one_hypothesis_in_an_n_best_list():
    assert output_formats.make_formatter("moses", 3)(0, "", Translation("")).count("\n") == 0


def test_json_contains_everything_in_one_line():
    value = json.loads(output_formats.make_formatter("json", 2)(7, "Two\u2028 dogs\nrun", BOTH))
    assert value["line"] == 7
    assert value["source"] == "Two\u2028 dogs\nrun"
    assert value["source_tokens"] == list(FIRST.source_tokens)
    assert value["text"] == "Zwei Hunde."
    assert value["tokens"] == list(FIRST.tokens)
    assert value["log_probabilities"] == list(FIRST.log_probabilities)
    assert value["alignment"] == [list(row) for row in FIRST.alignment]
    assert value["links"] == [[0, 0], [2, 1]]
    assert value["words"] == ["Zwei", "Hunde."]
    assert value["source_words"] == ["Two", "dogs", "run"]
    assert [each["text"] for each in value["alternatives"]] == ["Zwei Hunde.", "a ||| b\tc"]
    assert "\n" not in output_formats.format_json(None, 0, "a\nb", BOTH)


def test_json_never_contains_what_is_no_number():
    for bad in (math.inf, -math.inf, math.nan):
        line = output_formats.format_json(None, 0, "", Translation("a", bad, ("a",), (bad,)))
        assert json.loads(line)["score"] is None
        assert json.loads(line)["log_probabilities"] == [None]


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        (("xml", 1), "--format xml: no such format; there are: text, moses, json"),
        (("text", 2), "--n-best: text has one translation a line, not 2"),
    ],
)
def test_a_format_that_cannot_contain_it_is_refused(asked, what):
    with pytest.raises(ConfigError, match=what) as error:
        output_formats.make_formatter(*asked)
    assert error.value.exit_code == 2


def test_scores_are_sums_or_means_and_json_has_each_token():
    score = Score(-3.0, 2, (-1.0, -2.0), ("▁a", "</s>"))
    assert output_formats.format_score(False, "x", "a", score) == "-3.000000"
    assert output_formats.format_score(True, "x", "a", score) == "-1.500000"
    value = json.loads(output_formats.format_score_json(True, "x", "a", score))
    assert value == {
        "source": "x", "target": "a", "score": -1.5, "log_probability": -3.0,
        "tokens": ["▁a", "</s>"], "log_probabilities": [-1.0, -2.0],
    }  # fmt: skip
