"""Laws of batches cut from lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.data import bucketing

sides = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=300)


def captions(pairs=20_000, seed=1):
    """Lengths like those of short sentences and their translations."""
    generator = np.random.default_rng(seed)
    source = np.clip(generator.lognormal(2.7, 0.3, pairs), 3, 60).astype(np.int64)
    target = np.clip(source * generator.lognormal(0, 0.15, pairs), 3, 60).astype(np.int64)
    return source, target


def padding(source, target, batches, shapes=None):
    slots = 0
    for rows in batches:
        s, t = int(source[rows].max()), int(target[rows].max())
        held = len(rows), s, t
        if shapes:
            height, source_width, target_width = bucketing.smallest_shape(shapes, *held)
            slots += height * (source_width + target_width)
        else:
            slots += len(rows) * (s + t)
    return 1 - (source.sum() + target.sum()) / slots


@settings(max_examples=100, deadline=None, derandomize=True)
@given(sides, st.integers(4, 400), st.integers(10, 400))
def test_a_cut_keeps_every_pair_once_and_within_the_budget(pairs, slots, tokens):
    source, target = np.array(pairs).T
    batches = bucketing.bucket_by_length(source, target, slots, tokens)
    assert sorted(np.concatenate(batches)) == list(range(len(pairs)))
    for rows in batches:
        within = len(rows) * (source[rows].max() + target[rows].max()) <= slots
        assert (within and target[rows].sum() <= tokens) or len(rows) == 1


@pytest.mark.parametrize(("slots", "most"), [(4608, 0.02), (9216, 0.03)])
def test_a_cut_has_little_padding(slots, most):
    source, target = captions()
    batches = bucketing.bucket_by_length(source, target, slots, 4096)
    assert padding(source, target, batches) < most
    assert len(batches) < 2 * (source.sum() + target.sum()) / slots  # and batches of some size


@settings(max_examples=50, deadline=None, derandomize=True)
@given(sides, st.integers(4, 400))
def test_filled_shapes_have_every_pair_once(pairs, slots):
    source, target = np.array(pairs).T
    shapes = bucketing.choose_shapes(source, target, slots)
    batches = bucketing.pack_into_shapes(shapes, source, target)
    assert sorted(np.concatenate(batches)) == list(range(len(pairs)))
    for rows in batches:
        held = len(rows), int(source[rows].max()), int(target[rows].max())
        assert all(
            a <= b for a, b in zip(held, bucketing.smallest_shape(shapes, *held), strict=True)
        )


def test_few_shapes_have_little_padding():
    source, target = captions(30_000)
    shapes = bucketing.choose_shapes(source, target, 9216)
    assert len(shapes) <= bucketing.MAX_SHAPES
    assert all(rows * (s + t) <= 9216 for rows, s, t in shapes)
    assert padding(source, target, bucketing.pack_into_shapes(shapes, source, target), shapes) < 0.1


def test_shapes_of_a_large_corpus_fit_its_longest_pair():
    source, target = captions(200_000)
    source[77_777], target[5] = 200, 150
    shapes = bucketing.choose_shapes(source, target, 9216)
    assert shapes[-1][1:] == (200, 150)


def test_what_fits_no_shape_is_refused():
    with pytest.raises(ValueError, match="1 pairs fit no shape"):
        bucketing.pack_into_shapes(((4, 5, 5),), np.array([3, 9]), np.array([3, 3]))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=60), st.integers(1, 80))
def test_dealt_groups_keep_the_order_and_none_is_empty(sizes, count):
    groups = bucketing.balance_groups(np.array(sizes), count)
    assert np.concatenate(groups).tolist() == list(range(len(sizes)))
    assert len(groups) == min(count, len(sizes))
    assert all(len(group) for group in groups)


def test_dealt_groups_are_of_like_size():
    sizes = np.random.default_rng(1).integers(50, 150, 1000)
    found = [int(sizes[group].sum()) for group in bucketing.balance_groups(sizes, 100)]
    assert max(found) - min(found) < 300
