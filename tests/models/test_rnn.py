"""A recurrent model in the places of any other: engine, ensemble, bundle, alignments, processes."""

from __future__ import annotations

import pytest
import tiny_run

from mt.data.pairs import Pair
from mt.decoding.translate import open_engine
from mt.decoding.types import EngineOptions
from mt.errors import ConfigError
from mt.export import export

KINDS = ("bahdanau", "dot", "none")


def options(**more):
    return EngineOptions(**{"threads": 1, "precision": "fp32", **more})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An untrained run of each kind."""
    found = {}
    for kind in KINDS:
        model = f"{{kind: rnn, d_model: 12, units: 16, decoder_layers: 2, attention: {kind}}}"
        found[kind] = tiny_run.make(tmp_path_factory.mktemp(kind), model=model)
    return found


def told(engine, **more):
    asked = options(**more)
    return [(each.text, each.score) for each in engine.translate(tiny_run.SOURCES, asked)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentence_is_translated_alike_alone_and_among_others(runs, kind):
    engine = open_engine(runs[kind], options())
    together, alone = told(engine), told(engine, line_buffered=True)
    for (text, score), (own_text, own_score) in zip(together, alone, strict=True):
        assert text == own_text
        assert score == pytest.approx(own_score, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_its_translations_have_the_score_of_the_search(runs, kind):
    engine = open_engine(runs[kind], options())
    asked = options(search={"length_penalty": 0.0}, n_best=3)
    for source, found in zip(
        tiny_run.SOURCES, engine.translate(tiny_run.SOURCES, asked), strict=True
    ):
        for each in found.alternatives:
            if each.text:
                (score,) = engine.score([Pair(source, each.text, "en", "de", "x")])
                if score.pieces[:-1] == each.tokens:  # another cut into pieces scores otherwise
                    assert score.log_probability == pytest.approx(each.score, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_of_it_is_the_same_model(runs, kind, tmp_path):
    path = export.export_model(runs[kind], "bundle", tmp_path / "it.mt").path
    assert told(open_engine(path, options())) == told(open_engine(runs[kind], options()))


def test_it_joins_an_ensemble_with_a_transformer(runs, tmp_path):
    other = tiny_run.make(tmp_path)
    both = open_engine(runs["bahdanau"], options(ensemble_paths=(other,)))
    alone = open_engine(runs["bahdanau"], options())
    assert len(told(both)) == len(told(alone))
    assert told(both) != told(alone)


def test_its_alignments_are_of_each_token_over_the_source(runs):
    engine = open_engine(runs["bahdanau"], options())
    for found in engine.translate(tiny_run.SOURCES, options(alignments=True)):
        assert len(found.alignment) == len(found.tokens)
        for row in found.alignment:
            assert len(row) == len(found.source_tokens)
            assert sum(row) <= 1 + 1e-5


@pytest.mark.parametrize("asked", [{"alignments": True}, {"search": {"coverage_penalty": 0.2}}])
def test_without_attention_what_needs_it_is_refused_by_name(runs, asked):
    engine = open_engine(runs["none"], options())
    with pytest.raises(ConfigError, match=r"model\.attention: .*attention: none"):
        list(engine.translate(tiny_run.SOURCES, options(**asked)))
