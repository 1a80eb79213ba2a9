"""Searches in batches of a torch model: order, lengths, scores, prefixes, alignments."""

from __future__ import annotations

import pytest
import tiny_run
from native_engine import LINES, ONE, native, options, pair, texts

from mt.config.plugins import plugin
from mt.decoding.torch_searcher import TorchSearcher
from mt.decoding.types import Request


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """An engine whose output, cut into words again, is the same tokens."""
    return native.open(tiny_run.make(tmp_path_factory.mktemp("words"), "whitespace"), ONE)


def test_batch_size_and_order_do_not_change_translations(engine):
    expected = texts(engine, LINES)
    assert len(set(expected)) > 5
    assert texts(engine, LINES, batch_tokens=1) == expected
    assert texts(engine, LINES, batch_tokens=60) == expected
    assert texts(engine, LINES[::-1]) == expected[::-1]
    assert [texts(engine, [line])[0] for line in LINES] == expected


def test_a_batch_that_does_not_fit_in_memory_is_cut(engine, monkeypatch):
    expected, sizes = texts(engine, LINES), []
    search_batch = TorchSearcher._search_batch

    def cramped(self, search, config, options, sentences):
        sizes.append(len(sentences))
        if len(sentences) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return search_batch(self, search, config, options, sentences)

    monkeypatch.setattr(TorchSearcher, "_search_batch", cramped)
    assert texts(engine, LINES) == expected
    assert max(sizes) > 4


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
def test_a_translation_scores_what_forcing_it_scores(words, penalty):
    lines = tiny_run.SOURCES
    found = list(words.translate(lines, options(search={"length_penalty": penalty})))
    scores = list(words.score([pair(a, b.text) for a, b in zip(lines, found, strict=True)]))
    assert len({each.text for each in found}) > 1
    for each, forced in zip(found, scores, strict=True):
        ids = words.vocabulary.encode_target([each.text])[0]
        assert words.vocabulary.pieces_target(ids) == list(each.tokens)
        assert forced.tokens == len(each.log_probabilities) == len(each.tokens) + 1
        assert each.score * forced.tokens**penalty == pytest.approx(
            forced.log_probability, abs=1e-4
        )
        assert each.log_probabilities == pytest.approx(forced.token_log_probabilities, abs=1e-4)


def test_scores_do_not_depend_on_batch_mates(engine):
    pairs = [pair(a, b) for a in tiny_run.SOURCES for b in (*tiny_run.TARGETS, "")]
    together = list(engine.score(pairs))
    alone = [next(engine.score([each])) for each in pairs]
    for a, b in zip(together, alone, strict=True):
        assert a.tokens == b.tokens
        assert a.log_probability == pytest.approx(b.log_probability, abs=1e-4)


def test_max_lengths_follow_the_source_and_the_recipe(words, monkeypatch):
    asked: list[Request] = []

    class Build:
        @staticmethod
        def build(config):
            search = plugin("search", config.kind).build(config)
            return lambda decoder, request: asked.append(request) or search(decoder, request)

    monkeypatch.setattr("mt.decoding.torch_searcher.plugin", lambda folder, kind: Build)
    settings = {"max_length_ratio": 2.0, "max_length_extra": 3}
    texts(words, ["Girls sing.", "A boy eats an apple."], search=settings)
    assert asked[0].max_lengths.tolist() == [14, 8]


def test_n_best_lists_are_sorted_and_begin_with_the_translation(engine):
    for each in engine.translate(tiny_run.SOURCES, options(n_best=3)):
        scores = [other.score for other in each.alternatives]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
        assert each.alternatives[0].text == each.text
        assert len({other.tokens for other in each.alternatives}) == 3
    assert all(not each.alternatives for each in engine.translate(tiny_run.SOURCES))


def test_a_forced_prefix_begins_the_translation(engine):
    prefixes = ["Zwei Hunde", "", "ein Haus"] * 4
    found = list(engine.translate(tiny_run.SOURCES[:3] * 4, options(prefixes=prefixes)))
    for each, prefix in zip(found, prefixes, strict=True):
        assert each.text.startswith(prefix)
        assert each.prefix == prefix
    free = list(engine.translate(tiny_run.SOURCES[:3] * 4))
    assert [a.text == b.text for a, b in zip(found, free, strict=True)] == [False, True, False] * 4


def test_an_alignment_has_a_row_a_token_over_the_source_pieces(engine):
    for each in engine.translate(tiny_run.SOURCES, options(alignments=True, n_best=2)):
        for one in each.alternatives:
            assert len(one.alignment) == len(one.tokens)
            for row in one.alignment:
                assert len(row) == len(one.source_tokens)
                assert 0 < sum(row) < 1 + 1e-5
