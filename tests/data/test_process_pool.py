"""Work in several processes: in order, in bounded memory, and nothing left behind."""

import functools
import itertools
import multiprocessing
import os
import signal

import pytest

from mt.data.process_pool import AHEAD, map_in_order
from mt.errors import DataError, MachineError


def square(number):
    return number * number, os.getpid()


def fail(number):
    if number == 7:
        raise DataError("DATA-TEST", "line 7", "is bad", "mend it")
    return number


def die(number):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_results_are_in_the_order_of_the_items(processes):
    items = [(number, "kept here") for number in range(50)]
    done = list(map_in_order(square, items, processes, lambda item: item[0]))
    assert [item for item, _ in done] == items
    assert [result for _, (result, _) in done] == [n * n for n in range(50)]
    assert {pid == os.getpid() for _, (_, pid) in done} == {processes == 1}


def test_items_are_read_only_a_little_ahead():
    read = itertools.count()
    results = map_in_order(square, (next(read) for _ in range(1000)), 2)
    for _ in range(5):
        next(results)
    assert next(read) <= 5 + 2 * AHEAD + 1
    results.close()


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_the_work_is_raised_here(processes):
    results = map_in_order(fail, range(100), processes)
    with pytest.raises(DataError, match="line 7: is bad"):
        list(results)


def test_a_killed_worker_is_reported():
    with pytest.raises(MachineError, match="WORKER-DIED"):
        list(map_in_order(die, range(10), 2))


def test_no_items_start_nothing():
    assert list(map_in_order(functools.partial(square), [], 2)) == []


@pytest.mark.parametrize("moment", ["__init__", "start"])
def test_a_signal_while_the_pool_starts_leaves_no_process(moment, monkeypatch):
    from concurrent.futures import process

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(process._ExecutorManagerThread, moment, interrupt)
    before = set(multiprocessing.active_children())
    with pytest.raises(KeyboardInterrupt):
        list(map_in_order(square, range(10), 2))
    assert set(multiprocessing.active_children()) == before
