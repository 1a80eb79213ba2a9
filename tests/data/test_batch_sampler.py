"""Laws of the batch plan."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.config import schema
from mt.data import batch_sampler, collate
from mt.runtime.distributed import World, split_micro_batches

lengths = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=300)


def epoch_of(pairs, tokens=200, micro=150, seed=1, epoch=0, window=3, shapes=()):
    source, target = np.array(pairs).T
    config = schema.BatchingConfig(tokens=tokens, window=window)
    return batch_sampler.EpochPlan(source, target, config, micro, seed, epoch, shapes)


def plan(pairs, **options):
    epoch = epoch_of(pairs, **options)
    return [update for window in range(len(epoch.windows)) for update in epoch.updates(window)]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(lengths, st.integers(1, 400), st.integers(20, 400))
def test_every_pair_comes_once_an_epoch(pairs, tokens, micro):
    rows = [row for u in plan(pairs, tokens=tokens, micro=micro) for m in u for row in m]
    assert sorted(rows) == list(range(len(pairs)))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(lengths, st.integers(1, 400), st.integers(20, 400))
def test_the_number_of_updates_is_known_without_cutting(pairs, tokens, micro):
    options = {"tokens": tokens, "micro": micro}
    assert len(epoch_of(pairs, **options)) == len(plan(pairs, **options))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(lengths, st.integers(1, 400), st.integers(20, 400), st.integers(1, 4))
def test_ranks_have_disjoint_shares_and_equally_many_batches(pairs, tokens, micro, size):
    for update in plan(pairs, tokens=tokens, micro=micro):
        shares = [split_micro_batches(update, World(rank, size)) for rank in range(size)]
        assert len({len(share) for share in shares}) == 1
        rows = [row for share in shares for part in share for row in part]
        assert sorted(rows) == sorted(row for part in update for row in part)


def test_updates_have_the_tokens_of_the_recipe():
    generator = np.random.default_rng(1)
    pairs = generator.integers(3, 40, (20_000, 2))
    updates = plan(pairs, tokens=4000, micro=1000, window=100)
    sizes = [pairs[np.concatenate(u), 1].sum() for u in updates]
    assert abs(np.mean(sizes) - 4000) < 100
    assert min(sizes) > 3400
    assert max(sizes) < 4600


def test_windows_are_of_one_size():
    windows = epoch_of([(5, 10)] * 2010, tokens=200, window=10).windows
    assert {len(rows) for rows in windows} == {201}


def test_a_window_is_cut_alone():
    """So a resume costs one window, wherever in an epoch it begins."""
    epoch = epoch_of([(n % 17 + 1, n % 13 + 1) for n in range(2000)])
    alone = [[m.tolist() for m in u] for u in epoch.updates(5)]
    everything = plan([(n % 17 + 1, n % 13 + 1) for n in range(2000)])
    assert all(u in [[m.tolist() for m in v] for v in everything] for u in alone)
    assert sorted(row for u in alone for m in u for row in m) == sorted(epoch.windows[5].tolist())


def test_a_plan_is_a_function_of_seed_and_epoch():
    pairs = [(n % 17 + 1, n % 13 + 1) for n in range(500)]

    def told(**options):
        return [[m.tolist() for m in update] for update in plan(pairs, **options)]

    assert told() == told()
    assert told() != told(epoch=1)
    assert told() != told(seed=2)


def test_a_pair_longer_than_the_budget_is_a_batch_alone():
    updates = plan([(50, 50), (2, 2), (3, 3)], tokens=10, micro=20)
    alone = [m.tolist() for u in updates for m in u if 0 in m]
    assert alone == [[0]]


def test_collated_batches_are_padded_right_and_shifted():
    source = [np.array([70, 71, 3]), np.array([72, 3])]
    target = [np.array([80, 3]), np.array([81, 82, 3])]
    batch = collate.to_batch(source, target, np.array([5, 9]))
    assert batch.source.tolist() == [[70, 71, 3], [72, 3, 0]]
    assert batch.inputs.tolist() == [[2, 80, 3], [2, 81, 82]]
    assert batch.labels.tolist() == [[80, 3, 0], [81, 82, 3]]
    assert batch.source_lengths.tolist() == [3, 2]
    assert batch.target_lengths.tolist() == [2, 3]
    assert batch.rows.tolist() == [5, 9]


def test_a_batch_fills_its_shape_with_rows_that_count_nothing():
    source, target = [np.array([70, 71, 3])], [np.array([80, 3])]
    batch = collate.to_batch(source, target, np.array([5]), shape=(3, 4, 3))
    assert batch.source.tolist() == [[70, 71, 3, 0], [3, 0, 0, 0], [3, 0, 0, 0]]
    assert batch.inputs.tolist() == [[2, 80, 3], [2, 0, 0], [2, 0, 0]]
    assert batch.labels.tolist() == [[80, 3, 0], [0, 0, 0], [0, 0, 0]]
    assert batch.source_lengths.tolist() == [3, 0, 0]
    assert batch.target_lengths.tolist() == [2, 0, 0]
    assert batch.rows.tolist() == [5, -1, -1]


@pytest.mark.parametrize("bad", [0, 15, -3])
def test_a_micro_batch_too_small_for_any_pair_is_refused(bad):
    with pytest.raises(ValueError, match="16 to"):
        schema.BatchingConfig(micro_tokens=bad)
