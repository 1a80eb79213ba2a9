"""A corpus on the device gives the same batches as one on disk; here the device is the CPU."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from mt.data import collate
from mt.data.corpus import Corpus, Writer
from mt.data.gpu_corpus import GpuCorpus

CPU = torch.device("cpu")


@pytest.fixture(params=["uint16", "uint32"])
def corpus(request, tmp_path):
    generator = np.random.default_rng(1)
    lengths = generator.integers(1, 12, (2, 40)).astype(np.int32)
    ids = [np.concatenate([[*generator.integers(68, 60000, n - 1), 3] for n in s]) for s in lengths]
    tokens = {"source": ids[0], "target": ids[1]}
    with Writer(tmp_path, "train", request.param, "v") as writer:
        writer.append(
            {side: t.astype(request.param).tobytes() for side, t in tokens.items()},
            {"source": lengths[0].tobytes(), "target": lengths[1].tobytes()},
        )
    return Corpus.open(tmp_path, "train")


ROWS = [np.array([0]), np.array([39, 0, 7, 7]), np.arange(39, -1, -1)]


@pytest.mark.parametrize("rows", ROWS, ids=len)
def test_its_batches_equal_those_collated_on_the_host(corpus, rows):
    there, here = GpuCorpus(corpus, CPU).collate(rows), collate.collate_pairs(corpus, rows)
    for field in fields(here):
        a, b = getattr(there, field.name), getattr(here, field.name)
        assert a.dtype == b.dtype, field.name
        assert torch.equal(a, b), field.name


def test_a_fixed_shape_is_filled_with_padding(corpus):
    rows = np.array([3, 39])
    there = GpuCorpus(corpus, CPU).collate(rows, [(1, 20, 30), (4, 20, 30)])
    here = collate.collate_pairs(corpus, rows, [(1, 20, 30), (4, 20, 30)])
    for field in fields(here):
        assert torch.equal(getattr(there, field.name), getattr(here, field.name)), field.name
    assert there.source.shape == (4, 20)
    assert there.labels.shape == (4, 30)
