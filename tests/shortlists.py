"""Toy pairs, and engines with a shortlist, for the tests of shortlists."""

from __future__ import annotations

import numpy as np
import tiny_run

from mt.checkpoints import run_directory
from mt.data.corpus import EncodedPairs
from mt.decoding.translate import open_engine
from mt.decoding.types import EngineOptions
from mt.special_tokens import END

A, B, C, X = 400, 401, 402, 403  # source words, and one that is everywhere

a, b, c, x = 500, 501, 502, 503  # what they become


def corpus(*pairs):
    arrays = []
    for side in zip(*pairs, strict=True):
        ids = [np.array([*each, END], np.uint16) for each in side]
        arrays += [np.concatenate(ids), np.cumsum([0, *map(len, ids)], dtype=np.int64)]
    return EncodedPairs(*arrays)


TOY = corpus(
    ([A, B], [a, b]), ([A, C], [c, a]), ([B, C], [b, c]), ([A, X], [x, a]), ([X, B], [x, b]),
    ([C], [c]), ([X], [x]),
)  # fmt: skip


def digest(run):
    return run_directory.open_run(run).vocabulary.digest


def engine(run, **more):
    search = {"shortlist": True, **more.pop("search", {})}
    return open_engine(run, EngineOptions(threads=1, precision="fp32", search=search, **more))


def trained_on_all(folder):
    """A run; its validation pairs, which are those it trains on, are not left out."""
    run = tiny_run.make(folder)
    text = (run / "config.yaml").read_text(encoding="utf-8")
    kept = text.replace("drop_overlap: true", "drop_overlap: false")
    (run / "config.yaml").write_text(kept, encoding="utf-8")
    return run
