"""Which pairs a lexicon is learned from: all corpora, no monolingual text, the pieces of epochs."""

from __future__ import annotations

import numpy as np
import pytest
from resumable_run import written

from mt.config import recipe as recipes
from mt.data import training_lexicon
from mt.data.ibm_model1 import EMPTY
from mt.data.prepare import prepare
from mt.data.training_lexicon import learn_training_lexicon, sample_pairs
from mt.special_tokens import MASK


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("MT_CACHE", str(tmp_path / "cache"))

    def load(**changes):
        recipe, _ = recipes.load(written(tmp_path, **changes))
        return recipe, prepare(recipe, lambda line: None)

    return load


def test_the_sample_is_spread_over_the_corpus(prepared):
    recipe, data = prepared()
    pairs, rows = sample_pairs(recipe, data, 10)
    assert pairs is data.train
    assert len(rows) == 10
    assert np.diff(rows).min() >= len(pairs) // 10
    assert sample_pairs(recipe, data, 10**6)[1].tolist() == [*range(len(pairs))]


def test_monolingual_text_is_left_out(prepared):
    text = {"kind": "demo", "size": 40, "only": "source"}
    recipe, data = prepared(
        data__train=[{"kind": "demo", "size": 60}, text], objective__kind="denoising"
    )
    pairs, rows = sample_pairs(recipe, data, 10**6)
    assert 0 < len(rows) < len(pairs)
    assert all(pairs.source(int(row))[0] != MASK for row in rows)


def entries(lexicon):
    return {*zip(lexicon.source.tolist(), lexicon.target.tolist(), strict=True)}


def test_it_has_the_pieces_that_training_shows(prepared):
    """With BPE-dropout there are pieces that the plain segmentation never has."""
    plain = entries(learn_training_lexicon(*prepared()))
    sampling = {"source": {"dropout": 0.3}, "target": {"dropout": 0.3}}
    varied = entries(learn_training_lexicon(*prepared(vocabulary__sampling=sampling)))
    assert {s for s, _ in plain} < {s for s, _ in varied}
    assert {t for _, t in plain} < {t for _, t in varied}
    assert EMPTY in {s for s, _ in varied}


def test_it_is_a_function_of_the_recipe_and_its_data(prepared):
    sampling = {"source": {"dropout": 0.3}}
    one, two = (learn_training_lexicon(*prepared(vocabulary__sampling=sampling)) for _ in "ab")
    for name in ("source", "target", "probability"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    other = prepared(vocabulary__sampling=sampling, training__seed=99)
    assert entries(learn_training_lexicon(*other)) != entries(one)


def test_it_takes_no_more_pairs_and_links_than_it_may(prepared, monkeypatch):
    sampling = {"source": {"dropout": 0.3}}
    recipe, data = prepared(vocabulary__sampling=sampling)
    seen = []
    learn = training_lexicon.ibm_model1.learn_lexicon

    def watch(pairs, rows, size):
        seen.append((len(pairs), len(rows)))
        return learn(pairs, rows, size)

    monkeypatch.setattr(training_lexicon.ibm_model1, "learn_lexicon", watch)
    learn_training_lexicon(recipe, data)
    assert seen.pop() == (4 * len(data.train),) * 2
    monkeypatch.setattr(training_lexicon, "PAIRS", 50)
    learn_training_lexicon(recipe, data)
    assert seen.pop() == (50, 50)
    monkeypatch.setattr(training_lexicon, "LINKS", 2000)
    learn_training_lexicon(recipe, data)
    assert seen.pop()[1] < 20


def test_a_stream_gives_its_first_pairs(prepared):
    streamed, data = prepared(data__streaming=True, training__max_steps=9)
    pairs, rows = sample_pairs(streamed, data, 10**6)
    _, kept = prepared()
    assert data.train is None
    assert [pairs.target(int(row)).tolist() for row in rows] == [
        kept.train.target(row).tolist() for row in range(len(kept.train))
    ]


def test_text_alone_gives_an_empty_lexicon(prepared):
    both = [{"kind": "demo", "size": 40, "only": side} for side in ("source", "target")]
    found = learn_training_lexicon(*prepared(data__train=both, objective__kind="denoising"))
    assert len(found.source) == len(found.probability) == 0
