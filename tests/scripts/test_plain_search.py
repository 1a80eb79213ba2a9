"""The fast searches find on a real model what the plain ones find."""

import importlib
from pathlib import Path

import pytest
import tiny_run

from mt.config.plugins import plugin
from mt.decoding.types import EngineOptions, Sentence
from mt.special_tokens import END

OPTIONS = EngineOptions(threads=1, precision="fp32")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return plugin("engines", "native").open(
        tiny_run.make(tmp_path_factory.mktemp("plain")), OPTIONS
    )


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts" / "bench"))
    return importlib.import_module("plain_search")


@pytest.mark.parametrize(("kind", "beams"), [("greedy", 1), ("beam", 1), ("beam", 4)])
def test_the_plain_and_the_fast_search_find_the_same(engine, plain, kind, beams):
    search = plugin("search", kind).Config(**({"beams": beams} if kind == "beam" else {}))
    encoded = engine.vocabulary.encode_source([*tiny_run.SOURCES, "Dogs.", "a a red house"])
    sentences = [Sentence([*ids, END], min(2 * len(ids) + 3, 40)) for ids in encoded]
    found = list(engine.searcher.search(sentences, search, OPTIONS))
    model = engine.searcher.models[0].eval()
    for sentence, (best, *_) in zip(sentences, found, strict=True):
        follow = plain.next_token(model, sentence.source)
        if kind == "greedy":
            true = plain.greedy(follow, sentence.max_length)
        else:
            true = plain.beam(follow, beams, sentence.max_length)
        assert best.score == pytest.approx(true[0][0], abs=1e-4)
        tie = len(true) > 1 and true[0][0] - true[1][0] < 1e-4
        assert tie or tuple(best.tokens) == true[0][1]
