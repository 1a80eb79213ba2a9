"""Buffers of keys and values with few shapes and fixed places."""

from __future__ import annotations

import torch
from static_decoding import CPU

from mt.models.modules.static_kv_cache import BufferPool, StaticShape


def test_shapes_are_few():
    frames = {
        StaticShape.rounded_up(sentences, 5, source, tokens)
        for sentences in range(1, 257)
        for source in (1, 16, 17, 64)
        for tokens in (1, 33, 128)
    }
    assert len({frame.sentences for frame in frames}) == 10
    assert {frame.source for frame in frames} == {16, 32, 64}
    assert {frame.tokens for frame in frames} == {16, 64, 128}
    assert all(
        StaticShape.rounded_up(count, 1, length, length).sentences >= count
        and StaticShape.rounded_up(count, 1, length, length).source >= length
        for count in range(1, 600)
        for length in (1, 15, 16, 17, 100)
    )


def test_a_buffer_stays_where_it_is_until_it_is_too_small():
    pool = BufferPool(CPU)
    small = pool.view("a", (4, 5), torch.float32)
    assert pool.view("a", (2, 3), torch.float32).data_ptr() == small.data_ptr()
    moved = pool.moved
    assert pool.view("a", (100,), torch.float32).data_ptr() != small.data_ptr()
    assert pool.moved == moved + 1
