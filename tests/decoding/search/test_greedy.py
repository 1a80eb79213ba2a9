"""Greedy search is a beam of one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from table_decoder import (
    PIECES,
    Table,
    beams,
    make,
    models,
    request,
)


@beams
@pytest.mark.parametrize("repetition", [{}, {"no_repeat_ngram": 2, "repetition_penalty": 1.3}])
@pytest.mark.parametrize("settings", models)
def test_one_beam_is_greedy_search_exactly(kind, settings, repetition):
    prefixes = [(), (PIECES[0],) * 2, (PIECES[1],), (), (), (PIECES[0],)]
    for seed in range(20):
        asked = request(sentences=6, longest=12, seed=seed)
        if seed % 2:
            longer = asked.max_lengths + 2
            asked = replace(asked, max_lengths=longer, prefixes=prefixes)
        plain = {"beams": 1, "length_penalty": 0.0, **repetition}
        one = make(kind, **plain)(Table(seed, **settings), asked)
        greedy = make("greedy", **repetition)(Table(seed, **settings), asked)
        assert torch.equal(one.tokens, greedy.tokens)
        assert torch.equal(one.scores, greedy.scores)
        assert torch.equal(one.log_probabilities, greedy.log_probabilities)
