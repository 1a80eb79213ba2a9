"""The choice grows with the corpus and the machine, and stays within both."""

import math

import pytest

from mt.data.held_out_split import CorpusFacts
from mt.data.recipe_choice import (
    BY_PAIRS,
    CPU_SIZES,
    GPU_SIZES,
    Machine,
    choose,
    measure_machine,
)

CPU = Machine("cpu", False, 1e12, 30)
GPU = Machine("gpu", True, 4e14, 120)


def facts(pairs, words=10.0):
    return CorpusFacts(pairs + 200, {}, (words, words), int(3 * words), 100)


@pytest.mark.parametrize("machine", [CPU, GPU])
def test_more_pairs_get_more_pieces_and_less_dropout(machine):
    choices = [choose(facts(10**power), machine) for power in range(3, 9)]
    pieces = [choice.rules.vocabulary for choice in choices]
    dropout = [choice.rules.dropout for choice in choices]
    widths = [choice.size.d_model for choice in choices]
    assert pieces == sorted(pieces)
    assert dropout == sorted(dropout, reverse=True)
    assert widths == sorted(widths)
    assert set(widths) == ({128, 256} if machine is CPU else {256, 512, 1024})


def test_a_training_takes_no_longer_than_it_may():
    for power in range(3, 7):
        for minutes in (1, 10, 100):
            choice = choose(facts(10**power), Machine("cpu", False, 1e12, minutes))
            assert choice.epochs >= 1
            assert choice.minutes <= minutes or choice.epochs == 1
            assert choice.epochs <= choice.rules.epochs


def test_without_a_limit_of_the_user_a_small_corpus_is_not_left_half_learned():
    slow = Machine("cpu", False, 5e10, 30, 120)
    choice = choose(facts(10_000), slow)
    assert choice.epochs == choice.rules.epochs // 2
    assert 30 < choice.minutes <= 120
    assert choose(facts(10_000), Machine("cpu", False, 5e10, 30)).minutes <= 30


def test_small_corpora_are_not_learned_for_ever():
    assert choose(facts(1000), Machine("cpu", False, 1e15, 1e6)).epochs == BY_PAIRS[0].epochs


@pytest.mark.parametrize("pairs", [150, 2_000, 30_000, 10**6, 10**8])
@pytest.mark.parametrize("machine", [CPU, GPU])
def test_all_values_are_usable(pairs, machine):
    choice = choose(facts(pairs), machine)
    assert choice.warmup < choice.updates
    assert 50 <= choice.validate_every <= max(50, choice.updates)
    assert 1024 <= choice.batch <= (16384 if machine.is_gpu else 4096)
    assert choice.batch == 2 ** round(math.log2(choice.batch))
    assert 64 <= choice.max_length <= 256
    assert choice.ema in (0.999, 0.995)


def test_the_tables_are_in_order_and_complete():
    assert [rules.below for rules in BY_PAIRS] == sorted(rules.below for rules in BY_PAIRS)
    assert BY_PAIRS[-1].below == math.inf
    assert CPU_SIZES[0].pairs == GPU_SIZES[0].pairs == 0


def test_what_makes_learning_slow_is_left_out_where_time_is_short():
    """BPE-dropout pays after half of the epochs that suit the corpus, and costs before."""
    for pairs in (10_000, 50_000):
        slow, fast = (choose(facts(pairs), Machine("cpu", False, f, 30)) for f in (1e9, 1e13))
        assert slow.epochs < slow.rules.epochs // 2
        assert slow.rules.bpe_dropout == 0
        assert fast.rules.bpe_dropout == 0.1
        assert slow.rules.dropout == fast.rules.dropout


def test_this_machine_has_a_speed_and_a_name():
    machine = measure_machine(None)
    assert machine.flops > 1e8
    assert machine.minutes == (120 if machine.is_gpu else 30)
    assert machine.name
    assert machine.most_minutes == 4 * machine.minutes
    assert (measure_machine(7).minutes, measure_machine(7).most_minutes) == (7, 7)
