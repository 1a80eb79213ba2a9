"""From lines to translations: windows, blank and long lines, limits and scores."""

from __future__ import annotations

import pytest
from native_engine import LINES, ONE, native, options, pair, texts

from mt.decoding.text_translator import merge_translations, to_translation
from mt.decoding.types import Hypothesis, Sentence, Translation
from mt.errors import DataError
from mt.special_tokens import END


def test_parts_joined_are_one_translation_with_all_of_each():
    def part(text, score):
        return Translation(text, score, (text, text), (score, score, score))

    one = Translation("a", -1, ("a", "a"), (-1, -1, -1), (part("a", -1), part("b", -2)))
    two = Translation("x", -3, ("x", "x"), (-3, -3, -3), (part("x", -3), part("y", -5)))
    both = merge_translations([one, two], " ")
    assert (both.text, both.score, both.tokens) == ("a x", -4, ("a", "a", "x", "x"))
    assert both.log_probabilities == (-1, -1, -1, -3, -3, -3)
    assert [(each.text, each.score) for each in both.alternatives] == [("a x", -4), ("b y", -7)]
    assert merge_translations([], " ") == Translation("")


def test_windows_do_not_change_translations(engine, monkeypatch):
    import mt.decoding.batching

    expected = texts(engine, LINES)
    monkeypatch.setattr(mt.decoding.batching, "FIRST_WINDOW", 2)
    monkeypatch.setattr(mt.decoding.batching, "LARGEST_WINDOW", 5)
    assert texts(engine, LINES) == expected


def test_output_comes_before_all_input_was_read(engine):
    read = []

    def endless():
        while True:
            read.append(1)
            yield "Dogs."

    assert next(engine.translate(endless(), options())).text is not None
    assert len(read) <= 64


@pytest.mark.parametrize(
    "line", ["", " ", "\t \r", "\u00a0", "\u200b", "\ufeff", "\x00\x1b", "\u2028\u3000"]
)
def test_a_blank_line_stays_blank_and_never_meets_the_model(run, line):
    engine = native.open(run, ONE)
    engine.searcher.models = []
    (found,) = engine.translate([line])
    assert (found.text, found.score, found.tokens) == ("", 0.0, ())
    assert list(engine.translate([])) == []


def test_no_translation_contains_what_ends_a_line(run):
    engine = native.open(run, ONE)
    ids = engine.vocabulary.encode_target(["a\nb\rc"])[0]
    assert engine.vocabulary.decode_target([ids]) == ["a\nb\rc"]
    found = Hypothesis([*ids, END], -1.0, [0.0] * 20)
    told = to_translation(engine.vocabulary, (), found, "a\nb\rc", Sentence([END], 9))
    assert told.text == "a b c"


def test_a_long_line_is_split_at_its_sentences(engine, capsys):
    short = ["Two dogs play in the grass!", "Girls sing.", 'He says "The house is red."']
    for text in short:
        assert len(engine.vocabulary.encode_source([text])[0]) < 40
    line = " ".join(short)
    assert len(engine.vocabulary.encode_source([line])[0]) >= 40
    found = texts(engine, ["Dogs.", line, "Girls."])
    assert capsys.readouterr().err == (
        "mt: warning[LINE-LONG] 1 lines of more than 39 pieces were split at sentence ends, "
        "or cut where there are none: lines 2\n"
    )
    assert found[0] == texts(engine, ["Dogs."])[0]
    assert found[1] == " ".join(_parts(engine, short))
    assert capsys.readouterr().err == ""


def _parts(engine, sentences):
    """The translations of sentences, each with as many of those after it as fit."""
    parts, room = [], engine.profile.longest - 1
    for text in sentences:
        joined = f"{parts[-1]} {text}" if parts else text
        if parts and len(engine.vocabulary.encode_source([joined])[0]) <= room:
            parts[-1] = joined
        else:
            parts.append(text)
    assert len(parts) > 1
    return texts(engine, parts)


def test_a_long_line_without_sentence_ends_is_cut(engine, capsys):
    line = "dogs play " * 40
    cut = engine.vocabulary.encode_source([line])[0][: engine.profile.longest - 1]
    (found,) = engine.translate([line])
    assert "lines 1\n" in capsys.readouterr().err
    sentence = Sentence([*cut, END], len(found.log_probabilities))  # it ran to its limit
    ((best, *_),) = engine.searcher.search([sentence], engine.profile.search, ONE)
    assert found.score == best.score


def test_the_warning_names_ten_lines_and_counts_all(engine, capsys):
    texts(engine, ["", *["dogs play " * 40] * 9, *[""] * 99, *["dogs play " * 40] * 3])
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "12 lines" in told
    assert told.endswith("lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 110, ...\n")


def test_what_is_too_long_to_score_is_cut_with_a_warning(engine, capsys):
    (found,) = engine.score([pair("Dogs.", "Hunde " * 50)])
    assert found.tokens == engine.profile.longest
    assert "LINE-LONG" in capsys.readouterr().err


def test_a_pair_with_one_side_cannot_be_scored(engine):
    with pytest.raises(DataError, match="test:1: a side is missing"):
        list(engine.score([pair("Dogs.", None)]))


def test_too_few_prefixes_are_reported(engine):
    with pytest.raises(DataError, match="line 2: there is no prefix for it"):
        list(engine.translate(["Dogs.", "Girls."], options(prefixes=["Ein"])))
