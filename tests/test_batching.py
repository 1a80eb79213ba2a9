"""Laws of the batch plan."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt import batching

lengths = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=300)


def plan(pairs, tokens=200, micro=150, seed=1, epoch=0, window=3):
    source, target = np.array(pairs).T
    config = batching.Config(tokens=tokens, window=window)
    return batching.plan(source, target, config, micro, seed, epoch).updates


@settings(max_examples=100, deadline=None, derandomize=True)
@given(lengths, st.integers(10, 400), st.integers(20, 400))
def test_every_pair_comes_once_an_epoch(pairs, tokens, micro):
    rows = [row for update in plan(pairs, tokens, micro) for m in update for row in m]
    assert sorted(rows) == list(range(len(pairs)))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(lengths, st.integers(10, 400), st.integers(20, 400))
def test_no_micro_batch_is_larger_than_its_budget(pairs, tokens, micro):
    source, target = np.array(pairs).T
    for update in plan(pairs, tokens, micro):
        for rows in update:
            slots = len(rows) * (source[rows].max() + target[rows].max())
            assert slots <= micro or len(rows) == 1
            assert target[rows].sum() <= tokens or len(rows) == 1


def test_updates_hold_the_tokens_asked_for():
    generator = np.random.default_rng(1)
    pairs = generator.integers(3, 40, (20_000, 2))
    sizes = [pairs[np.concatenate(u), 1].sum() for u in plan(pairs, 4000, 1000, window=100)[:-1]]
    assert abs(np.mean(sizes) - 4000) < 100
    assert max(sizes) < 4600


def test_little_is_padding():
    generator = np.random.default_rng(1)
    source = generator.integers(4, 40, 20_000)
    pairs = np.stack([source, np.maximum(2, source + generator.integers(-4, 5, 20_000))], 1)
    real = slots = 0
    for update in plan(pairs, 4096, 4096, window=100):
        for rows in update:
            real += pairs[rows].sum()
            slots += len(rows) * (pairs[rows, 0].max() + pairs[rows, 1].max())
    assert 1 - real / slots < 0.1


def test_a_plan_is_a_function_of_seed_and_epoch():
    pairs = [(n % 17 + 1, n % 13 + 1) for n in range(500)]

    def told(**options):
        return [[m.tolist() for m in update] for update in plan(pairs, **options)]

    assert told() == told()
    assert told() != told(epoch=1)
    assert told() != told(seed=2)


def test_a_pair_longer_than_the_budget_stands_alone():
    updates = plan([(50, 50), (2, 2), (3, 3)], tokens=10, micro=20)
    alone = [m.tolist() for u in updates for m in u if 0 in m]
    assert alone == [[0]]


def test_collated_batches_are_padded_right_and_shifted():
    source = [np.array([70, 71, 3]), np.array([72, 3])]
    target = [np.array([80, 3]), np.array([81, 82, 3])]
    batch = batching.batch_of(source, target, np.array([5, 9]))
    assert batch.source.tolist() == [[70, 71, 3], [72, 3, 0]]
    assert batch.inputs.tolist() == [[2, 80, 3], [2, 81, 82]]
    assert batch.labels.tolist() == [[80, 3, 0], [81, 82, 3]]
    assert batch.source_lengths.tolist() == [3, 2]
    assert batch.target_lengths.tolist() == [2, 3]
    assert batch.rows.tolist() == [5, 9]


@pytest.mark.parametrize("bad", [0, 15, -3])
def test_a_micro_batch_too_small_for_any_pair_is_refused(bad):
    with pytest.raises(ValueError, match="at least 16"):
        batching.Config(micro_tokens=bad)
