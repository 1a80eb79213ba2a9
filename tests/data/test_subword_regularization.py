"""Subword regularization cuts the corpus again for each epoch, and the same for one seed."""

from __future__ import annotations

import numpy as np
from sampled_vocabularies import LINES, learned, pairs_of, sentences

from mt.config.schema import SamplingConfig
from mt.data import subword_regularization
from mt.data.subword_regularization import SubwordRegularizer
from mt.vocabulary.subword_sampling import BpeDropout, Pieces


def test_many_sentences_are_cut_some_at_a_time(vocabularies, monkeypatch):
    known = vocabularies["bpe"]
    monkeypatch.setattr(subword_regularization, "CHUNK_TOKENS", 40)
    draw = SubwordRegularizer(SamplingConfig(target={"dropout": 0.3}), known, 10_000)
    pairs = pairs_of(known, [*LINES, "", *LINES])
    assert known.decode_target(sentences(draw(pairs, 1))) == [*LINES, "", *LINES]


def test_no_sentence_becomes_too_long(vocabularies):
    known = vocabularies["unigram"]
    pairs = pairs_of(known, LINES)
    plain = sentences(pairs)
    limit = max(map(len, plain))
    draw = SubwordRegularizer(SamplingConfig(target={"alpha": 0.0}), known, limit)
    most = draw.max_lengths(pairs)
    assert most == (limit, limit)
    found = [sentences(draw(pairs, 1, epoch)) for epoch in range(5)]
    assert max(len(ids) for epoch in found for ids in epoch) <= limit
    assert any(epoch[row] == plain[row] for epoch in found for row in range(len(plain)))
    loose = SubwordRegularizer(SamplingConfig(target={"alpha": 0.0}), known, 10_000)
    assert max(map(len, sentences(loose(pairs, 1, 0)))) > limit
    assert loose.max_lengths(pairs)[1] >= max(map(len, sentences(loose(pairs, 1, 0))))


def test_a_sentence_with_a_character_that_is_no_piece_keeps_its_cut():
    """In some models a character stands within longer pieces only."""
    pieces = Pieces("bpe", ["", "", "", "", "a", "ab"], np.array([0, 0, 0, 0, -2.0, -1.0]))
    draw = SubwordRegularizer(SamplingConfig(), learned("bpe"), 99)
    ids, starts = np.array([5, 3, 4, 3]), np.array([0, 2, 4])
    cut = BpeDropout(pieces, 1.0)
    found, lengths = draw._segment(ids, starts, pieces, cut, np.random.default_rng(1))
    assert (found.tolist(), lengths.tolist()) == ([5, 3, 4, 3], [2, 2])
