"""Learn a lexical shortlist from the training data of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mt.checkpoints import run_directory
from mt.config.recipe import Recipe
from mt.data.cache import PreparedData
from mt.data.corpus import EncodedPairs, token_type
from mt.data.encode import encode, encode_options, to_row
from mt.data.prepare import prepare
from mt.data.streaming import StreamRanks, Window, read_chunks, shard_order_seed
from mt.decoding import ibm_model1, shortlist
from mt.decoding.shortlist import Shortlist
from mt.errors import DataError, ModelError
from mt.runtime.console import print_line
from mt.special_tokens import FIRST_PIECE, MASK

ALWAYS_ALLOWED = FIRST_PIECE + 256
"""The special, the reserved and the byte pieces, from 0 on, are on every shortlist."""


PIECES, FREQUENT, PAIRS = 100, 1000, 200_000
"""What `build_shortlist` is asked for when nothing else is said."""


def learn_shortlist(
    path: Path, count: int = PIECES, frequent: int = FREQUENT,
    most: int = PAIRS, tell: Callable[[str], None] = print_line,
) -> None:  # fmt: skip
    """Learn the lexical shortlist of a run from its training data, and write it into the run.

    Args:
        path: a run directory, or a checkpoint folder in one.
        count: target pieces kept for each source piece.
        frequent: the most frequent target pieces, kept for every source.
        most: pairs to learn from, spread over the corpora; of streamed ones the first.
        tell: where a line of progress goes.

    Raises:
        ModelError: there is no such run, or its data give another vocabulary now.
        DataError: the data are not there any more.
    """
    opened = run_directory.open_run(path)
    known = opened.vocabulary
    inherited = known if opened.recipe.training.initialise_from else None
    prepared = prepare(opened.recipe, tell, inherited)
    if prepared.vocabulary.digest != known.digest:
        what = "the data of its recipe give another vocabulary now: they have changed"
        advice = "restore the data that the run was trained on"
        raise ModelError("VOCAB-MISMATCH", opened.run, what, advice)
    pairs: EncodedPairs | None = prepared.train
    if pairs is None:
        pairs = _first_streamed_pairs(opened.recipe, prepared, most)
    rows = ibm_model1.spread_rows(pairs, most)
    tokens, offsets = pairs.arrays("source")
    rows = rows[tokens[offsets[rows]] != MASK]  # text alone says nothing of translation
    if not len(rows):
        what = "it was trained on text of one side only, which says nothing of translation"
        raise DataError("SHORTLIST-NONE", opened.run, what, "fine-tune it on pairs first")
    tell(f"learning a shortlist from {len(rows):,} of {len(pairs):,} pairs")
    found = build_shortlist(
        pairs, rows, known.source_size, known.target_size, known.joint, count, frequent
    )
    shortlist.save_shortlist(found, opened.run, known.digest)


def _first_streamed_pairs(recipe: Recipe, prepared: PreparedData, most: int) -> EncodedPairs:
    """The first pairs of a stream, encoded."""
    known, limit = prepared.vocabulary, recipe.data.max_length
    dtype, rows, count = token_type(known.size), [], 0
    how = [encode_options(config, known) for config in recipe.data.train]
    for chunk, _ in read_chunks(
        recipe.data.train, shard_order_seed(recipe.training.seed), StreamRanks(), None
    ):
        if recipe.data.train[chunk.corpus].side is not None:
            continue
        encoded = encode(chunk.source, chunk.target, known, limit, prepared.held, how[chunk.corpus])
        rows.append(to_row(encoded, dtype))
        count += len(encoded.source)
        if count >= most:
            break
    return Window(rows, dtype)


def build_shortlist(
    pairs: EncodedPairs, rows: NDArray[np.int64], source_size: int, target_size: int,
    joint: bool, count: int = PIECES, frequent: int = FREQUENT,
) -> Shortlist:  # fmt: skip
    """The shortlist of some pairs of a corpus.

    Args:
        pairs: the corpus.
        rows: which of its pairs, ascending; see `lexicon.spread`.
        source_size, target_size: number of ids of each side.
        joint: whether an id is the same piece on both sides, which can then become itself.
        count: target ids kept for each source id, the most probable by IBM Model 1.
        frequent: the most frequent target ids that are on every shortlist.
    """
    said = [np.empty(0, np.int64), *(pairs.target(int(row)) for row in rows)]
    counts = np.bincount(np.concatenate(said), minlength=target_size)
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
