"""Diverse beams: groups against a plain program."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from table_decoder import (
    PIECES,
    Table,
    follows,
    make,
    models,
    request,
    rows_of,
    texts,
)

from mt.special_tokens import END

# --------------------------------------------------------------------- diverse beams


def plain_diverse(table, source, longest, groups, diversity):
    """Groups of one beam, one after another, in plain Python."""
    live: list[tuple[int, ...] | None] = [()] * groups
    totals, ended, follow = [0.0] * groups, set(), follows(table, source)
    for length in range(1, longest + 1):
        taken: Counter[int] = Counter()
        for group in range(groups):
            if (prefix := live[group]) is None:
                continue
            gains = follow([prefix])[0].tolist()
            allowed = [END] if length == longest else [END, *PIECES]
            ranked = sorted(
                (-(totals[group] + gains[t]) + diversity * taken[t], t) for t in allowed
            )
            if ranked[0][0] == math.inf or ranked[0][1] == END:
                live[group] = None
                if ranked[0][0] < math.inf:
                    ended.add((*prefix, END))
                continue
            token = ranked[0][1]
            taken[token] += 1
            totals[group] += gains[token]
            live[group] = (*prefix, token)
    return ended


@pytest.mark.parametrize("settings", models)
@pytest.mark.parametrize("diversity", [0.0, 0.4, 3.0])
def test_groups_avoid_the_tokens_of_those_before(diversity, settings):
    for seed, groups in itertools.product(range(6), (1, 2, 4)):
        table, asked = Table(seed, **settings), request(seed=seed, longest=8, n_best=groups)
        search = make("diverse", beams=groups, groups=groups, diversity=diversity)
        found = texts(search(table, asked))
        for row, (source, longest) in enumerate(r[1:] for r in rows_of(asked)):
            true = plain_diverse(table, source, longest, groups, diversity)
            assert set(found[row]) == true
            assert diversity or len(true) <= 1


def test_more_diversity_gives_more_different_first_tokens():
    counts = []
    for diversity in (0.0, 0.5, 50.0):
        asked = request(sentences=12, longest=5, n_best=3)
        lengths = asked.max_lengths.clamp(min=3)
        search = make("diverse", beams=3, groups=3, diversity=diversity)
        found = search(Table(2), replace(asked, max_lengths=lengths))
        counts.append(sum(len({tokens[0] for tokens in each}) for each in texts(found)))
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("settings", models)
def test_one_group_is_beam_search(settings):
    for seed, width in itertools.product(range(6), (1, 2, 5)):
        asked = request(sentences=6, seed=seed, longest=9, n_best=width)
        one = make("diverse", beams=width, groups=1)(Table(seed, **settings), asked)
        beam = make("beam", beams=width)(Table(seed, **settings), asked)
        assert texts(one) == texts(beam)
        assert torch.allclose(one.scores, beam.scores, atol=1e-5)


def test_groups_that_cannot_share_the_beams_are_refused():
    with pytest.raises(ValidationError, match="3 cannot share 4 beams"):
        make("diverse", beams=4, groups=3)
