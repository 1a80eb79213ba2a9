"""Types of decoding: where the text of a sentence begins."""

from __future__ import annotations

import dataclasses

import pytest

from mt.decoding.types import EngineOptions, Sentence
from mt.special_tokens import BACK_TRANSLATED, END, FIRST_PIECE, FIRST_RESERVED, UNK


@pytest.mark.parametrize(
    ("source", "front"),
    [
        ([FIRST_PIECE, END], 0), ([UNK, END], 0), ([END], 0), ([BACK_TRANSLATED, END], 1),
        ([FIRST_RESERVED, FIRST_PIECE - 1, FIRST_PIECE, FIRST_RESERVED, END], 2),
    ],
)  # fmt: skip
def test_the_control_pieces_before_a_text_are_counted(source, front):
    assert Sentence(source, 5).front == front


def test_options_leave_every_choice_to_the_run_and_do_not_change():
    options = EngineOptions()
    chosen = (options.checkpoint, options.device, options.precision, options.threads)
    assert chosen == (None, None, None, None)
    assert (dict(options.search), options.n_best, options.seed) == ({}, 1, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.n_best = 2
