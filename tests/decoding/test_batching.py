"""Windows and batches of lines; blank lines; sentences; what is put together again."""

from __future__ import annotations

import random

from mt.decoding.batching import growing_windows, length_batches, rounded_batch_size


def test_windows_begin_small_grow_and_contain_every_item_in_order():
    found = list(growing_windows(range(20_000)))
    assert [len(each) for each in found] == [64, 1024, 4096, 4096, 4096, 4096, 2528]
    assert [item for each in found for item in each] == list(range(20_000))
    assert list(growing_windows([])) == []


def test_batches_contain_every_row_once_within_the_budget_and_little_padding():
    generator = random.Random(1)
    for _ in range(50):
        lengths = [generator.randint(0, 40) for _ in range(generator.randint(0, 200))]
        found = list(length_batches(lengths, 100))
        assert sorted(row for each in found for row in each) == list(range(len(lengths)))
        for each in found:
            assert len(each) == 1 or len(each) * max(lengths[row] for row in each) <= 100
        longest = [lengths[row] for each in found for row in each]
        assert longest == sorted(lengths, reverse=True)


def test_batches_come_in_few_sizes_within_the_budget():
    lengths = [7 + (row * 13) % 40 for row in range(5000)]
    found = list(length_batches(lengths, 3000))
    assert sorted(row for rows in found for row in rows) == list(range(5000))
    assert all(len(rows) * max(lengths[row] for row in rows) <= 3000 for rows in found)
    assert all(rounded_batch_size(len(rows)) == len(rows) for rows in found[:-1])
    assert len({rounded_batch_size(n) for n in range(1, 513)}) < 40
