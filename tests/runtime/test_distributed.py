"""Processes that share a run."""

from __future__ import annotations

import os
import socket
from datetime import timedelta

import numpy as np
import pytest
import torch

from mt.cli import main
from mt.errors import MachineError
from mt.runtime import distributed
from mt.runtime.distributed import SINGLE, World, split_micro_batches

# ----------------------------------------------------------------------------- the launcher

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def launched(monkeypatch):
    """Set the variables of a launcher, and no others."""

    def set_variables(**values):
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_variables


@pytest.mark.parametrize("empty", ["", " "])
def test_empty_variables_of_a_launcher_are_unset(launched, empty):
    launched(**dict.fromkeys(NAMES, empty), GROUP_RANK=empty)
    with distributed.join_processes() as world:
        assert world == SINGLE
    assert not distributed.several_processes()
    assert distributed.rank_prefix() == ""
    assert "MASTER_PORT" not in os.environ


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORLD_SIZE", "two"), ("WORLD_SIZE", "0"), ("WORLD_SIZE", "-1"), ("WORLD_SIZE", "9" * 30),
        ("RANK", "x"), ("RANK", "2"), ("RANK", "-1"), ("RANK", "1.0"), ("LOCAL_RANK", "gpu0"),
        ("LOCAL_WORLD_SIZE", "0"), ("MASTER_PORT", "port"), ("MASTER_PORT", "70000"),
    ],
)  # fmt: skip
def test_a_variable_that_is_no_number_is_named(launched, name, value, tmp_path, capsys):
    sound = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    launched(**{**sound, name: value})
    assert main.run(["train", str(tmp_path / "nowhere.yaml")]) == 2
    err = capsys.readouterr().err
    assert f"error[LAUNCHER] {name}: the environment variable is '{value}'" in err


def test_a_process_says_what_it_waits_for(launched, monkeypatch, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launched(WORLD_SIZE="2", RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    assert distributed.NOTICE_SECONDS <= 10
    monkeypatch.setattr(distributed, "NOTICE_SECONDS", 0.2)
    monkeypatch.setattr(distributed, "TIMEOUT", timedelta(seconds=2))
    with pytest.raises(MachineError, match="RENDEZVOUS"), distributed.join_processes():
        pass
    place = f"127.0.0.1:{port}"
    waits = f"mt: rank 0 of 2 waits for the other process at {place}, 0:00:02 at most\n"
    assert capsys.readouterr().err == waits


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
