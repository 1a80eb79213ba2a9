"""From lines to translations: windows, blank and long lines, limits and scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_run
from native_engine import LINES, ONE, native, options, pair, texts

from mt.data.sentences import UsualLengths
from mt.decoding.letter_case import capitalise, restore_case
from mt.decoding.text_translator import TextTranslator, merge_translations, to_translation
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
        "or clauses or words where there are none: lines 2\n"
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


@pytest.mark.parametrize(
    "line",
    ["dogs play " * 40, "the dogs play, " * 30, "the dogs play, and a very old man " * 30],
    ids=["words", "clauses", "both"],
)
def test_nothing_is_lost_of_a_long_sentence(engine, line, capsys):
    (found,) = engine.translate([line], options(search={"restore_case": False}))
    assert "lines 1\n" in capsys.readouterr().err
    assert "".join(found.source_tokens) == "".join(
        engine.vocabulary.pieces_source(engine.vocabulary.encode_source([line])[0])
    )


def as_trained_on(engine, several=99, sentence=99):
    """The same engine as if its training text had these usual lengths."""
    usual = UsualLengths(sentence=sentence, several=several)
    profile = replace(engine.profile, usual=usual)
    return TextTranslator(engine.searcher, engine.vocabulary, profile, engine.options)


def test_a_line_of_more_sentences_than_usual_is_translated_in_parts(engine, capsys):
    first, second, third = "Dogs play.", "Girls sing.", "The house is red."
    line = f"{first} {second} {third}"
    two = len(engine.vocabulary.encode_source([f"{first} {second}"])[0])
    alone = texts(engine, [first, second, third])
    assert texts(as_trained_on(engine, 0), [line, first]) == [" ".join(alone), alone[0]]
    joined = texts(engine, [f"{first} {second}", third])
    assert texts(as_trained_on(engine, two), [line]) == [" ".join(joined)]
    whole = texts(engine, [line])
    assert texts(as_trained_on(engine), [line]) == whole
    assert capsys.readouterr().err == ""


def test_a_sentence_longer_than_usual_is_translated_in_clauses(engine, capsys):
    clauses = ["The dogs play in the grass,", " and the old house is red."]
    line = "".join(clauses)
    longest = max(map(len, engine.vocabulary.encode_source(clauses)))
    splitting = as_trained_on(engine, several=0, sentence=longest)
    assert texts(splitting, [line]) == [" ".join(texts(engine, [each.strip() for each in clauses]))]
    without = line.replace(",", "")
    assert texts(splitting, [without]) == texts(engine, [without])
    assert texts(as_trained_on(engine), [line]) == texts(engine, [line])
    assert capsys.readouterr().err == ""


def test_a_line_stays_whole_when_asked_for_and_where_a_prefix_or_a_heat_map_needs_it(engine):
    line = "Dogs play. Girls sing."
    splitting = as_trained_on(engine, 0)
    assert texts(splitting, [line]) != texts(engine, [line])
    for more in ({"search": {"split_sentences": False}}, {"prefixes": ["Hunde"]}):
        assert texts(splitting, [line], **more) == texts(engine, [line], **more)
    assert splitting.sentence(line) == engine.sentence(line)


def test_a_word_that_does_not_fit_is_cut(engine, capsys):
    words = ["dogs", "x" * 500, "play"]
    room = engine.profile.longest - 1
    cut = engine.vocabulary.encode_source(["x" * 500])[0][:room]
    (found,) = engine.translate([" ".join(words)], options(search={"keep_untranslatable": False}))
    assert "lines 1\n" in capsys.readouterr().err
    expected = [
        engine.vocabulary.pieces_source(ids)
        for ids in (
            engine.vocabulary.encode_source(["dogs"])[0],
            cut,
            engine.vocabulary.encode_source(["play"])[0],
        )
    ]
    assert found.source_tokens == tuple(piece for part in expected for piece in part)


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


@pytest.mark.parametrize("end", [" ", "  ", "\t", " \t"])
def test_a_prefix_that_ends_in_white_space_ends_a_word(engine, end):
    lines = tiny_run.SOURCES[:3]
    (within,) = engine.translate(lines[:1], options(prefixes=["Zwei Hunde"]))
    assert within.text[len("Zwei Hunde")] != " "  # so this model goes on
    asked = options(prefixes=[f"Zwei Hunde{end}", f"ein Ha{end}", end], n_best=2)
    first, second, third = engine.translate(lines, asked)
    assert all(each.text.startswith("Zwei Hunde ") for each in first.alternatives)
    assert all(each.text.startswith("ein Ha ") for each in second.alternatives)
    assert third.text == texts(engine, lines)[2]


def test_white_space_at_the_end_of_a_prefix_is_not_a_piece_of_its_own():
    """A model knows a space as a part of the next word, and goes astray after one alone."""
    golden = Path(__file__).parents[1] / "golden"
    engine = native.open(golden / "transformer", ONE)
    (line, *_) = (golden / "source.txt").read_text().splitlines()
    (free,) = texts(engine, [line])
    prefix = " ".join(free.split(" ")[:2])
    assert texts(engine, [line] * 2, prefixes=[f"{prefix} ", prefix[:-1]]) == [free] * 2


def test_what_the_length_limit_ended_is_marked(engine):
    """A translation that ends by itself is whole, even where the limit would be."""

    class Fixed:
        """Finds one hypothesis for each sentence: to the limit, or one token shorter."""

        prefetch_windows = 0

        def search(self, sentences, config, options):
            for sentence in sentences:
                shorter, value = next(ends)
                ids = [80] * (sentence.max_length - 1 - shorter) + [END]
                yield [Hypothesis(ids, -1.0, [-1.0] * (len(ids) - 1) + [value])]

    ends = iter([(0, -3.0), (0, -0.1), (1, -3.0)])
    fixed = TextTranslator(Fixed(), engine.vocabulary, engine.profile, ONE)
    assert [each.truncated for each in fixed.translate(["a", "b", "c", ""])] == [
        True, False, False, False
    ]  # fmt: skip
    parts = [Translation("a"), Translation("b", truncated=True)]
    assert merge_translations(parts, " ").truncated
    assert not merge_translations(parts[:1] * 2, " ").truncated


@pytest.mark.parametrize("kind", ["greedy", "beam", "sampling", "diverse", "mbr"])
def test_every_search_marks_what_it_did_not_end(engine, kind):
    few = {"kind": kind, "max_length_ratio": 0.01, "max_length_extra": 2}
    found = list(engine.translate(["Dogs.", ""], options(search=few)))
    assert [each.truncated for each in found] == [True, False]


def test_a_line_in_capitals_is_translated_in_the_usual_spelling(engine):
    capitals = "THE OLD HOUSE IS RED. THE MAN IS READING {x} https://x.org/a"
    (usual,) = restore_case([capitals], engine.vocabulary.encode_source, "en")
    assert usual != capitals
    (plain,) = engine.translate([usual], options(n_best=2))
    (found,) = engine.translate([capitals], options(n_best=2))
    for one, other in zip(found.alternatives, plain.alternatives, strict=True):
        assert one.text == capitalise(other.text, "de")
        assert one.tokens == other.tokens
    assert "https://x.org/a" in found.text
    own = {"restore_case": False}
    assert texts(engine, [capitals], search=own) != [found.text]
    assert texts(engine, [capitals], prefixes=["Das"]) == texts(
        engine, [capitals], prefixes=["Das"], search=own
    )


def test_a_heat_map_shows_a_line_as_it_is(engine):
    for line in ("THE OLD HOUSE IS RED.", "See {x}"):
        own = engine.vocabulary.encode_source([line])[0]
        assert list(engine.sentence(line).source[:-1]) == own
