"""Laws of memory: what is free, what says that it is exhausted, and the most that fits."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.models import transformer
from mt.runtime import memory
from mt.training import autotune
from mt.training.objectives import cross_entropy
from mt.training.step import ModelWithLoss


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(1, 500), st.integers(0, 5000), st.integers(1, 40), st.integers(0, 6000))
def test_the_largest_that_fits_is_found_to_within_the_grain(first, more, grain, room):
    limit = first + more
    found = memory.bisect_max(lambda size: size <= room, first, limit, grain)
    if room < first:
        assert found is None
    else:
        assert first <= found <= min(room, limit)
        assert found > min(room, limit) - grain


def test_nothing_larger_than_the_limit_is_tried():
    tried = []
    memory.bisect_max(lambda size: not tried.append(size), 100, 950, 1)
    assert tried == [100, 200, 400, 800, 950]


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory\nCompile with ..."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), True),
        (RuntimeError("size mismatch"), False),
        (ValueError("CUDA error: out of memory"), False),
    ],
)
def test_memory_that_does_not_suffice_is_known_by_what_is_said(error, is_memory):
    assert memory.is_out_of_memory(error) == is_memory


def test_the_allocators_own_error_is_known():
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert memory.is_out_of_memory(error.value)


def test_the_available_memory_is_told_on_linux():
    room = memory.available_bytes()
    assert room is None or 10 << 20 < room < 1 << 50


# ------------------------------------------------------------------------ micro-batches


@pytest.fixture
def step(vocabulary):
    config = transformer.Config(
        d_model=16, n_heads=2, d_ff=16, encoder_layers=1, decoder_layers=1, dropout=0.1
    )
    model = transformer.build(config, vocabulary)
    return ModelWithLoss(model, cross_entropy.CrossEntropy(model, 0.1), "fp32")


CORPUS = SimpleNamespace(source_lengths=np.array([3, 5, 20]), target_lengths=np.array([4, 30, 6]))
CPU = torch.device("cpu")


def test_what_a_pass_keeps_grows_with_its_rows(step):
    one, four = (
        autotune.activation_bytes(step, autotune.full_batch(n, 20, 30, CPU)) for n in (1, 4)
    )
    assert 3.5 * one < four < 4.5 * one


def test_the_worst_micro_batches_are_full_and_hold_the_longest_sides():
    longest, middling = autotune.worst_batches(CORPUS, 500, CPU)
    assert longest.source.shape == (10, 20)
    assert longest.labels.shape == (10, 30)
    assert middling.source.numel() + middling.labels.numel() <= 500


def test_micro_batches_shrink_where_memory_is_short_but_hold_a_pair(step, monkeypatch):
    found = []
    for room in (None, 1 << 40, 1 << 20, 1):
        monkeypatch.setattr(memory, "available_bytes", lambda room=room: room)
        found.append(autotune.find_cpu_micro_tokens(step, CORPUS, 100, 6144))
    assert found[:2] == [6144, 6144]
    assert 100 < found[2] < 6144
    assert found[3] == 100


def test_what_was_found_is_not_tried_again_on_the_same_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("MT_CACHE", str(tmp_path))
    tried = []

    def find():
        tried.append(1)
        return 700 + len(tried)

    about = {"model": {"d_model": 8}, "device": "a"}
    assert [autotune.cached_number(about, find) for _ in range(2)] == [701, 701]
    assert autotune.cached_number({**about, "device": "b"}, find) == 702
    for path in (tmp_path / "micro_tokens").iterdir():
        path.write_text("{")
    assert autotune.cached_number(about, find) == 703
