"""Padded batches from encoded pairs: nothing is lost, and filling counts nothing."""

from __future__ import annotations

import numpy as np
import pytest

from mt.data import collate
from mt.special_tokens import BEGIN, END, PAD

SOURCE = [np.array([70, 71, END]), np.array([72, END])]
TARGET = [np.array([80, END]), np.array([81, 82, 83, END])]
ROWS = np.array([5, 2])


def test_a_batch_has_every_id_at_its_place_and_padding_elsewhere():
    batch = collate.to_batch(SOURCE, TARGET, ROWS)
    assert batch.source.tolist() == [[70, 71, END], [72, END, PAD]]
    assert batch.target.tolist() == [[BEGIN, 80, END, PAD, PAD], [BEGIN, 81, 82, 83, END]]
    assert batch.source_lengths.tolist() == [3, 2]
    assert batch.target_lengths.tolist() == [2, 4]
    assert batch.rows.tolist() == [5, 2]


def test_rows_that_fill_a_shape_have_no_label_and_one_source_token():
    batch = collate.to_batch(SOURCE, TARGET, ROWS, (4, 6, 7))
    assert batch.source.shape == (4, 6)
    assert batch.labels.shape == batch.inputs.shape == (4, 7)
    assert batch.rows.tolist() == [5, 2, -1, -1]
    assert batch.target_lengths.tolist() == [2, 4, 0, 0]
    assert not batch.labels[2:].any()
    assert (batch.source[2:] != PAD).sum(dim=1).tolist() == [1, 1]
    assert (batch.labels != PAD).sum(dim=1).tolist() == batch.target_lengths.tolist()


def test_no_rows_give_a_batch_that_only_fills():
    batch = collate.collate_pairs(None, np.array([], np.int64), [(2, 3, 4)])
    assert batch.source.shape == (2, 3)
    assert batch.rows.tolist() == [-1, -1]
    assert not batch.labels.any()


@pytest.mark.parametrize("width", [0, 2, 5])
def test_rows_are_padded_to_the_longest_or_the_width(width):
    padded = collate.pad_rows([np.array([1, 2, 3]), np.array([4])], width)
    assert padded.shape == (2, max(3, width))
    assert padded[0, :3].tolist() == [1, 2, 3]
    assert padded.sum() == 10
