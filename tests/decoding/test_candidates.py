"""The candidates of a step: exact where bits were saved, in batches of few sizes."""

from __future__ import annotations

import pytest
import torch
from table_decoder import NONE

from mt.decoding.batching import rounded_batch_size
from mt.decoding.candidates import forced_log_probs, sentences_to_keep, top_k, top_pieces
from mt.special_tokens import END, FIRST_PIECE


class Rounded:
    """A decoder whose logits of all tokens have the bits of bf16, and of a few all of them."""

    def __init__(self, exact):
        self.exact = exact

    def recompute_in_fp32(self, state, ids, logits):
        return self.exact.gather(-1, ids)


@pytest.mark.parametrize("size", [70, 300, 8000])
@pytest.mark.parametrize("count", [1, 4, 9])
def test_the_best_of_many_are_those_of_a_stable_sort(size, count):
    generator = torch.Generator().manual_seed(size + count)
    for levels in (3, 10**6):  # many that are equal, and none
        values = torch.randint(-levels, levels, (2, 3, size), generator=generator).float()
        values[0, 0, size // 2 :] = float("-inf")
        found, places = top_k(values, count)
        wanted = values.sort(dim=-1, descending=True, stable=True)
        assert torch.equal(places, wanted.indices[..., :count])
        assert torch.equal(found, wanted.values[..., :count])


def test_candidates_from_few_bits_have_the_probabilities_of_all():
    generator = torch.Generator().manual_seed(1)
    exact = torch.randn(6, 5, 2000, generator=generator) * 4
    rough = exact.bfloat16()
    gains, ids = top_pieces(Rounded(exact), None, rough, 5)
    assert (ids[..., 0] == END).all()
    assert (ids[..., 1:] >= FIRST_PIECE).all()
    true = exact.log_softmax(-1)
    assert (gains - true.gather(-1, ids)).abs().max() < 0.01
    plain = rough.float().log_softmax(-1).gather(-1, ids)
    assert (plain - true.gather(-1, ids)).abs().max() > 0.02, "the law could not fail"
    five = true[..., FIRST_PIECE:].topk(5).indices + FIRST_PIECE
    kept = [(five[b, n][:, None] == ids[b, n]).any(1).all() for b in range(6) for n in range(5)]
    assert all(kept)


def test_what_is_forced_has_the_probability_that_all_bits_give_it():
    generator = torch.Generator().manual_seed(2)
    exact = torch.randn(6, 5, 2000, generator=generator) * 12
    rough = exact.bfloat16()
    forced = torch.tensor([END, -1, 70, 71, 1999, 500])
    found = top_pieces(Rounded(exact), None, rough, 5)
    gains, ids = forced_log_probs(Rounded(exact), None, rough, forced, *found)
    held = forced >= 0
    assert (ids[held] == forced[held, None]).all()
    true = exact.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    assert (gains - true)[held].abs().max() < 0.01
    plain = rough.float().log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    assert (plain - true)[held].abs().max() > 0.02, "the law could not fail"


def test_a_batch_goes_on_with_all_that_have_not_stopped():
    for count in (1, 3, 8, 40, 64, 200):
        for stops in range(count):
            stopped = torch.zeros(count, dtype=torch.bool)
            stopped[
                torch.randperm(count, generator=torch.Generator().manual_seed(stops))[:stops]
            ] = 1
            left = sentences_to_keep(stopped, stops)
            if left is None:
                continue
            assert len(left) == rounded_batch_size(count - stops) < count
            assert (left.diff() > 0).all()
            assert set((~stopped).nonzero()[:, 0].tolist()) <= set(left.tolist())


# ----------------------------------------------------------------------- the best of many


@pytest.mark.parametrize("count", [1, 2, 5, 9, 20])
def test_the_best_of_many_ties_are_the_first(count):
    generator = torch.Generator().manual_seed(count)
    values = torch.randint(0, 6, (2, 50, 16), generator=generator).float()
    values[values == 0] = NONE
    ordered = values.sort(dim=-1, descending=True, stable=True)
    found, places = top_k(values, count)
    assert torch.equal(found, ordered.values[..., :count])
    there = found != NONE
    assert torch.equal(places[there], ordered.indices[..., :count][there])
