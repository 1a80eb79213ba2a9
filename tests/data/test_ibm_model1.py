"""IBM model 1: the lexicon is that of plain expectation maximisation."""

from __future__ import annotations

import numpy as np
import pytest
from shortlists import TOY, A, B, C, X, a, b, c, x

from mt.data import ibm_model1
from mt.special_tokens import END


class TestLexicon:
    def test_each_word_finds_its_translation(self):
        found = ibm_model1.learn_lexicon(TOY, np.arange(len(TOY)), 600, iterations=10)
        source, target = found.best(1)
        assert dict(zip(source.tolist(), target.tolist(), strict=True)).items() >= {
            (A, a), (B, b), (C, c), (X, x),
        }  # fmt: skip

    def test_the_targets_of_a_source_sum_to_one(self):
        found = ibm_model1.learn_lexicon(TOY, np.arange(len(TOY)), 600)
        sums = np.bincount(found.source, found.probability)
        assert sums[[ibm_model1.EMPTY, A, B, C, X]] == pytest.approx(1.0)
        assert END not in found.source
        assert END not in found.target

    def test_em_is_that_of_the_paper(self, monkeypatch):
        """Against the plain algorithm in dictionaries, in several chunks of links."""
        monkeypatch.setattr(ibm_model1, "CHUNK", 5)
        pairs = [(TOY.source(i)[:-1].tolist(), TOY.target(i)[:-1].tolist()) for i in range(7)]
        t = {(e, f): 1.0 for es, fs in pairs for e in (0, *es) for f in fs}
        for _ in range(3):
            counts = dict.fromkeys(t, 0.0)
            for es, fs in pairs:
                for f in fs:
                    total = sum(t[e, f] for e in (0, *es))
                    for e in (0, *es):
                        counts[e, f] += t[e, f] / total
            sums = {e: sum(v for (g, _), v in counts.items() if g == e) for e, _ in t}
            t = {(e, f): v / sums[e] for (e, f), v in counts.items()}
        found = ibm_model1.learn_lexicon(TOY, np.arange(len(TOY)), 600, iterations=3)
        entries = zip(found.source.tolist(), found.target.tolist(), strict=True)
        got = dict(zip(entries, found.probability.tolist(), strict=True))
        assert got == pytest.approx(t, abs=1e-6)

    def test_the_best_are_the_most_probable_of_equal_ones_the_lowest(self):
        probability = np.array([0.2, 0.4, 0.4, 0.9, 0.1], np.float32)
        source = np.array([70, 70, 70, 71, 71])
        found = ibm_model1.Lexicon(source, np.array([90, 91, 92, 90, 93]), probability)
        kept = [each.tolist() for each in found.best(2)]
        assert kept == [[70, 70, 71, 71], [91, 92, 90, 93]]

    def test_pairs_are_spread_over_the_corpus_and_bounded(self):
        assert ibm_model1.spread_rows(TOY, 100).tolist() == list(range(7))
        assert ibm_model1.spread_rows(TOY, 3).tolist() == [0, 2, 4]
        assert 1 <= len(ibm_model1.spread_rows(TOY, 100, 20)) < 4
