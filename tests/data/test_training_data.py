"""Training data: from any cursor on, the same updates follow, and all of an epoch are one epoch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from prepared_corpora import quietly, recipe_of

from mt.data.training_data import open_training_data
from mt.interfaces import Cursor
from mt.runtime.distributed import SINGLE, World


@pytest.fixture
def open_data(folder):
    """A function that opens the training data, which have several windows an epoch."""
    recipe = recipe_of(folder)
    batching = recipe.batching.model_copy(update={"tokens": 500, "window": 4})
    recipe = recipe.model_copy(update={"batching": batching})
    prepared = quietly(recipe)

    def open_it(world=SINGLE):
        data = open_training_data(recipe, prepared, torch.device("cpu"), world, lambda _: None)
        data.set_resolved({"micro_tokens": 300, "shapes": []})
        return data

    return open_it


def taken(data, cursor, count):
    updates = itertools.islice(data.updates(cursor), count)
    return [([rows.tolist() for rows in micros], after) for micros, after in updates]


def epoch_length(data):
    return next(n for n, (_, after) in enumerate(data.updates(Cursor()), 1) if after.epoch == 1)


def test_from_any_cursor_the_same_updates_follow(open_data):
    length = epoch_length(open_data())
    whole = taken(open_data(), Cursor(), length + 3)
    assert len({after.window for _, after in whole}) > 1
    for number, (_, cursor) in enumerate(whole[:-1], start=1):
        assert taken(open_data(), cursor, len(whole) - number) == whole[number:]


def test_an_epoch_has_every_pair_once_and_the_next_another_order(open_data):
    data = open_data()
    length = epoch_length(data)
    epochs = [taken(data, Cursor(epoch), length) for epoch in (0, 1)]
    rows = [[row for micros, _ in epoch for micro in micros for row in micro] for epoch in epochs]
    assert sorted(rows[0]) == list(range(len(data.pairs)))
    assert rows[0] != rows[1]


def test_ranks_share_an_update_and_count_all_of_its_tokens(open_data):
    micros, _ = next(open_data().updates(Cursor()))
    shares = [open_data(World(rank, 2)).rank_micro_batches(micros) for rank in range(2)]
    assert len(shares[0]) == len(shares[1])
    every = np.concatenate([rows for share in shares for rows in share])
    assert sorted(every.tolist()) == sorted(np.concatenate(micros).tolist())
    data = open_data()
    tokens = data.count_target_tokens(micros)
    assert tokens == sum(int(data.load(rows).target_lengths.sum()) for rows in micros)
