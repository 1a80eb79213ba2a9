"""Which training pairs a lexicon is learned from, and the one that guides cross-attention."""

from __future__ import annotations

import numpy as np

from mt.config.recipe import Recipe
from mt.data import ibm_model1
from mt.data.cache import PreparedData
from mt.data.corpus import EncodedPairs, join_pairs, select_pairs, token_type
from mt.data.encode import encode, encode_options, to_row
from mt.data.epoch_variation import EpochVariation
from mt.data.ibm_model1 import Ids, Lexicon
from mt.data.streaming import Window, read_chunks, shard_order_seed
from mt.runtime.distributed import SINGLE
from mt.special_tokens import MASK

PAIRS, LINKS = 50_000, 12_000_000
"""Most pairs, and most links, of the lexicon that guides attention: it learns for seconds."""
VARIANTS = 4
"""Most times that a pair is learned from, where its pieces vary from epoch to epoch."""


def sample_pairs(recipe: Recipe, prepared: PreparedData, most: int) -> tuple[EncodedPairs, Ids]:
    """Return pairs and which rows of them to learn from, ascending: at most `most`.

    They are spread over the corpora; of streamed ones they are the first. Monolingual text is left
    out: it says nothing of translation.
    """
    pairs: EncodedPairs | None = prepared.train
    if pairs is None:
        pairs = _first_streamed_pairs(recipe, prepared, most)
    rows = ibm_model1.spread_rows(pairs, most)
    tokens, offsets = pairs.arrays("source")
    return pairs, rows[tokens[offsets[rows]] != MASK]


def _first_streamed_pairs(recipe: Recipe, prepared: PreparedData, most: int) -> EncodedPairs:
    """The first `most` pairs of a stream, encoded."""
    vocabulary, corpora = prepared.vocabulary, recipe.data.train
    limit, dtype = recipe.data.max_length, token_type(vocabulary.size)
    options = [encode_options(config, vocabulary) for config in corpora]
    rows, count = [], 0
    order = shard_order_seed(recipe.training.seed)
    for chunk, _ in read_chunks(corpora, order, SINGLE, None):
        if corpora[chunk.corpus].side is not None:
            continue
        own = options[chunk.corpus]
        encoded = encode(chunk.source, chunk.target, vocabulary, limit, prepared.held_out, own)
        rows.append(to_row(encoded, dtype))
        count += len(encoded.source)
        if count >= most:
            break
    return Window(rows, dtype)


def learn_training_lexicon(recipe: Recipe, prepared: PreparedData) -> Lexicon:
    """Learn the lexicon of the pieces that training shows, a function of the recipe and its data.

    Where pieces vary from epoch to epoch, it learns from the variants of some epochs.
    """
    pairs, rows = sample_pairs(recipe, prepared, PAIRS)
    if not len(rows):
        return Lexicon(rows, rows, np.empty(0, np.float32))
    sample = select_pairs(pairs, rows)
    variation = EpochVariation(recipe, prepared.vocabulary)
    if variation:
        variants = min(VARIANTS, max(1, PAIRS // len(rows)))
        seed = recipe.training.seed
        sample = join_pairs([variation(sample, seed, epoch) for epoch in range(variants)])
    rows = ibm_model1.spread_rows(sample, PAIRS, LINKS)
    return ibm_model1.learn_lexicon(sample, rows, prepared.vocabulary.target_size)
