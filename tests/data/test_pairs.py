"""Raw pairs: read more than once, one side dropped on demand."""

from __future__ import annotations

import pytest

from mt.config.schema import Languages
from mt.data.pairs import Chunk, Pair, drop_unused_side, read_pairs
from mt.data.sources import demo


def corpus(**more):
    return demo.Config(kind="demo", size=5, languages=Languages(source="en", target="de"), **more)


def test_pairs_are_read_twice_alike():
    pairs = read_pairs(corpus(only="source"))
    first = list(pairs)
    assert len(first) == 5
    assert list(pairs) == first


@pytest.mark.parametrize(("only", "dropped"), [("source", "target"), ("target", "source")])
def test_the_unused_side_is_dropped_and_the_other_one_is_unchanged(only, dropped):
    whole, half = list(read_pairs(corpus())), list(read_pairs(corpus(only=only)))
    assert [getattr(pair, only) for pair in half] == [getattr(pair, only) for pair in whole]
    assert {getattr(pair, dropped) for pair in half} == {None}
    assert all(getattr(pair, dropped) for pair in whole)


@pytest.mark.parametrize("only", ["source", "target", None])
def test_a_chunk_of_a_stream_drops_the_same_side(only):
    pairs = [Pair("a", "b", "en", "de", "x:1"), Pair("c", "d", "en", "de", "x:2")]
    chunk = Chunk([p.source for p in pairs], [p.target for p in pairs], {"line": 2}, 3)
    after = drop_unused_side(chunk, corpus(only=only))
    assert after.source == (["a", "c"] if only != "target" else [None, None])
    assert after.target == (["b", "d"] if only != "source" else [None, None])
    assert (after.after, after.corpus) == ({"line": 2}, 3)
