"""Learn a lexical shortlist from the training data of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mt.checkpoints import run_directory
from mt.data import ibm_model1
from mt.data.corpus import EncodedPairs
from mt.data.prepare import prepare
from mt.data.training_lexicon import sample_pairs
from mt.decoding import shortlist
from mt.decoding.shortlist import Shortlist
from mt.errors import DataError, ModelError
from mt.runtime.console import print_line
from mt.special_tokens import FIRST_PIECE
from mt.vocabulary.vocabulary import FORMAT

ALWAYS_ALLOWED = FIRST_PIECE + 256
"""The special, the reserved and the byte pieces, from 0 on, are on every shortlist."""
PIECES, FREQUENT, PAIRS = 100, 1000, 200_000
"""Defaults of `learn_shortlist`."""


def learn_shortlist(
    path: Path, count: int = PIECES, frequent: int = FREQUENT,
    most: int = PAIRS, log: Callable[[str], None] = print_line,
) -> None:  # fmt: skip
    """Learn the shortlist of a run from its training data, and write it into the run.

    It keeps `count` target pieces for each source piece, and the most `frequent` ones for all. It
    learns from `most` pairs, spread over the corpora; of streamed ones the first.

    Raises:
        ModelError: there is no such run, or its data now give another vocabulary.
        DataError: the data are not there any more.
    """
    run = run_directory.open_run(path)
    vocabulary = run.vocabulary
    is_learned = run.recipe.training.initialise_from is None and vocabulary.format == FORMAT
    inherited = None if is_learned else vocabulary
    prepared = prepare(run.recipe, log, inherited)
    if prepared.vocabulary.digest != vocabulary.digest:
        what = "the data of its recipe give another vocabulary now: they have changed"
        advice = "restore the data that the run was trained on"
        raise ModelError("VOCAB-MISMATCH", run.run, what, advice)
    pairs, rows = sample_pairs(run.recipe, prepared, most)
    if not len(rows):
        what = "it was trained on text of one side only, which says nothing of translation"
        raise DataError("SHORTLIST-NONE", run.run, what, "fine-tune it on pairs first")
    log(f"learning a shortlist from {len(rows):,} of {len(pairs):,} pairs")
    sizes = vocabulary.source_size, vocabulary.target_size
    learned = build_shortlist(pairs, rows, *sizes, vocabulary.joint, count, frequent)
    shortlist.save_shortlist(learned, run.run, vocabulary.digest)


def build_shortlist(
    pairs: EncodedPairs, rows: NDArray[np.int64], source_size: int, target_size: int,
    joint: bool, count: int = PIECES, frequent: int = FREQUENT,
) -> Shortlist:  # fmt: skip
    """The shortlist of the pairs `rows`, ascending, of a corpus.

    Args:
        joint: an id is the same piece on both sides, which may then translate to itself.
        count: target ids kept for each source id, the most probable by IBM Model 1.
        frequent: the most frequent target ids that are on every shortlist.
    """
    targets = [np.empty(0, np.int64), *(pairs.target(int(row)) for row in rows)]
    counts = np.bincount(np.concatenate(targets), minlength=target_size)
    fixed = min(ALWAYS_ALLOWED, target_size)
    common = fixed + np.argsort(-counts[fixed:], kind="stable")[:frequent]
    always = np.sort(np.concatenate([np.arange(fixed), common])).astype(np.int32)
    source, target = ibm_model1.learn_lexicon(pairs, rows, target_size).best(count)
    if joint:
        own = np.arange(FIRST_PIECE, source_size)
        source, target = np.concatenate([source, own]), np.concatenate([target, own])
    order = np.argsort(source, kind="stable")
    source, target = source[order], target[order]
    place = np.arange(len(source)) - np.searchsorted(source, source)
    pieces = np.zeros((source_size, int(place.max(initial=0)) + 1), np.int32)
    pieces[source, place] = target
    return Shortlist(pieces, always, target_size)
