"""Figures between two reports: means and shares of what was added, then nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mt.data import collate
from mt.runtime.distributed import SINGLE
from mt.training.meter import Meter, peak_memory


def batch(source, target):
    sides = [[np.full(n, 3) for n in lengths] for lengths in (source, target)]
    return collate.to_batch(*sides, np.arange(len(source)))


def test_figures_are_means_and_shares_since_the_last_report():
    meter = Meter()
    batches = [batch((4, 2), (3, 1)), batch((5,), (5,))]  # 8 + 6 and 5 + 5 padded positions
    meter.add(torch.tensor(2.0), torch.tensor(7.0), 9, 20, batches, 0.0)
    meter.add(torch.tensor(4.0), torch.tensor(3.0), 5, 10, batches[1:], 0.0)
    figures = meter.start_reading(SINGLE)()
    assert figures["loss"] == 3.0
    assert figures["grad_norm"] == 3.0
    assert figures["target_tokens"] == 14
    assert figures["padding_fraction"] == pytest.approx(1 - 30 / 34)
    assert figures["target_tokens_per_second"] > 0


def test_a_report_begins_the_next_one_at_nothing():
    meter = Meter()
    meter.add(torch.tensor(2.0), torch.tensor(7.0), 9, 10, [batch((4,), (6,))], 0.0)
    meter.start_reading(SINGLE)()
    meter.add(torch.tensor(1.0), torch.tensor(1.0), 2, 10, [batch((4,), (6,))], 0.0)
    figures = meter.start_reading(SINGLE)()
    assert (figures["loss"], figures["target_tokens"]) == (1.0, 2)
    assert figures["padding_fraction"] == 0.0


def test_peak_memory_is_in_bytes_and_never_falls():
    before = peak_memory()
    assert before > 10 * 2**20  # this process has torch in it
    assert peak_memory() >= before
