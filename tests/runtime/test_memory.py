"""Laws of memory: what is free, what says that it is exhausted, and the most that fits."""

from __future__ import annotations

import errno
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.runtime import memory


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
        (RuntimeError("can't start new thread"), True),
        (RuntimeError("std::bad_alloc"), True),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), True),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), True),
        (RuntimeError("size mismatch"), False),
        (ImportError("no module named torch"), False),
        (ValueError("CUDA error: out of memory"), False),
    ],
)
def test_out_of_memory_is_recognised_by_its_message(error, is_memory):
    assert memory.is_out_of_memory(error) == is_memory


def test_the_allocators_own_error_is_known():
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert memory.is_out_of_memory(error.value)


def test_the_available_memory_is_known_on_linux():
    room = memory.available_bytes()
    assert room is None or 10 << 20 < room < 1 << 50
