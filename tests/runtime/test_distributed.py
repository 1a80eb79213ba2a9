"""Processes that share a run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mt.runtime import distributed
from mt.runtime.distributed import SINGLE, World, split_micro_batches

# ------------------------------------------------------------------------------ the shares


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("sizes", [[4], [4, 4], [7, 1, 3], [1, 1, 1, 1, 9, 2, 5]], ids=str)
def test_every_row_goes_to_one_process(sizes, size):
    ends = np.cumsum(sizes)
    micros = [np.arange(end - n, end) for n, end in zip(sizes, ends, strict=True)]
    shares = [split_micro_batches(micros, World(rank, size)) for rank in range(size)]
    rows = [row for share in shares for part in share for row in part.tolist()]
    assert sorted(rows) == list(range(ends[-1]))
    assert len({len(share) for share in shares}) == 1
    if size == 1:
        assert all(a is b for a, b in zip(shares[0], micros, strict=True))


def test_one_process_alone_waits_for_nobody_and_keeps_its_values():
    value = torch.tensor([1.5, -2.0])
    assert distributed.all_reduce_sum(SINGLE, value) is value
    assert distributed.all_reduce_max(SINGLE, 1.0, -3.0) == [1.0, -3.0]
    assert distributed.all_gather_json(SINGLE, {"a": [1]}) == [{"a": [1]}]
    assert distributed.from_main(SINGLE, lambda: "x") == "x"
    assert distributed.main_first(SINGLE, "name", lambda: 7) == 7


def test_only_rank_0_is_main():
    assert [World(rank, 3).is_main for rank in range(3)] == [True, False, False]
