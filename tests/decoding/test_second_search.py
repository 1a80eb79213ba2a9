"""What makes a sentence be searched again, and what comes of it."""

from __future__ import annotations

import pytest
import tiny_run
from native_engine import ONE, native, options, texts

from mt.data.text import repeats
from mt.decoding.text_translator import TextTranslator
from mt.decoding.types import Hypothesis
from mt.special_tokens import END


class Looping:
    """Repeats a piece wherever it may, for sentences longer than three pieces."""

    prefetch_windows = 0

    def __init__(self, vocabulary):
        self.good, self.again = vocabulary.encode_target(["old house"])[0], 0
        self.piece = max(vocabulary.encode_target(["house"])[0])

    def search(self, sentences, config, options):
        self.again += config.no_repeat_ngram > 0
        for sentence in sentences:
            loops = len(sentence.source) > 4 and config.no_repeat_ngram == 0
            ids = [*([self.piece] * 12 if loops else self.good), END]
            yield [Hypothesis(ids, -1.0, [-1.0] * len(ids))]


def test_what_repeats_itself_is_searched_again_without_repetition(engine):
    looping = Looping(engine.vocabulary)
    made = TextTranslator(looping, engine.vocabulary, engine.profile, ONE)
    (loop,) = texts(made, ["the old house is green"])
    assert repeats(loop)
    assert looping.again == 0
    lines = ["a", "the old house is green", "", "ha ha ha ha ha ha ha ha", "b"]
    retry = {"retry_repetition": True}
    assert texts(made, lines, search=retry) == ["old house", "old house", "", loop, "old house"]
    assert looping.again == 1
    assert texts(made, lines, search={**retry, "no_repeat_ngram": 2})[1] == "old house"
    assert looping.again == 2  # the one search that there is


KEPT = [
    "Dogs see https://x.org/a?b=1.", "{0} Dogs", "Two <b>dogs</b> play 12345 times",
    "The old house is \u2603", "Girls %s sing", "https://x.org {0}!",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["greedy", "beam", "sampling", "diverse", "mbr"])
def test_what_a_translation_must_keep_is_in_it_whatever_the_model_writes(engine, kind):
    """An untrained model loses all of it."""
    lines = [*KEPT, "Dogs play.", ""]
    found = list(engine.translate(lines, options(search={"kind": kind})))
    kept = [
        "https://x.org/a?b=1",
        "{0}",
        "<b>",
        "</b>",
        "12345",
        "\u2603",
        "%s",
        "https://x.org {0}!",
    ]
    for part in kept:
        (own,) = {line for line in KEPT if part in line and (part != "{0}" or line[0] == "{")}
        assert part in found[lines.index(own)].text
    assert all(each.alignment is None for each in found)
    plain = {"kind": kind, "keep_untranslatable": False}
    without = [each.text for each in engine.translate(lines, options(search=plain))]
    assert not any(part in text for part in kept for text in without)
    assert [each.text for each in found][-2:] == without[-2:]


def test_alignments_and_alternatives_have_what_is_kept(engine):
    asked = options(n_best=2, alignments=True)
    for line, found in zip(KEPT, engine.translate(KEPT, asked), strict=True):
        for each in found.alternatives:
            assert each.alignment is not None
            assert len(each.alignment) == len(each.tokens) == len(each.log_probabilities) - 1
            assert {len(row) for row in each.alignment} == {len(each.source_tokens)}
        source = "".join(found.source_tokens).replace("\u2581", "").replace(" ", "")
        assert source == line.replace(" ", "")


def test_a_model_without_attention_keeps_it_too(tmp_path):
    model = "{kind: rnn, attention: none, d_model: 16, units: 8}"
    engine = native.open(tiny_run.make(tmp_path, model=model), ONE)
    assert "{0}" in texts(engine, ["Two {0} dogs play"])[0]


def test_a_line_of_very_many_parts_is_translated_as_it_is(engine):
    """Its time would grow with the square of their number."""
    most, more = ("{0}," * count + "dogs" for count in (100, 101))
    (kept,), (lost,) = texts(engine, [most]), texts(engine, [more])
    assert kept.count("{0}") == 100
    assert [lost] == texts(engine, [more], search={"keep_untranslatable": False})


def test_unknown_words_of_a_list_of_words_are_not_put_back(tmp_path):
    """It has many of them, also in good sentences."""
    words = native.open(tiny_run.make(tmp_path, "whitespace"), ONE)
    line = "Zebras see the NATO"
    without = texts(words, [line], search={"keep_untranslatable": False})
    assert texts(words, [line]) == without
    assert "NATO" not in without[0]
