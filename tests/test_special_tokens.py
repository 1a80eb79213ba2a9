"""The ids that every vocabulary reserves do not overlap, and checkpoints depend on them."""

from __future__ import annotations

import tiny_run

from mt import special_tokens as tokens
from mt.vocabulary.vocabulary import Vocabulary


def test_reserved_ids_are_apart_and_text_begins_after_them():
    special = [tokens.PAD, tokens.UNK, tokens.BEGIN, tokens.END]
    reserved = range(tokens.FIRST_RESERVED, tokens.FIRST_RESERVED + tokens.N_RESERVED)
    assert sorted([*special, *reserved]) == list(range(tokens.FIRST_PIECE))
    assert {tokens.MASK, tokens.BACK_TRANSLATED} <= set(reserved)
    assert tokens.MASK != tokens.BACK_TRANSLATED


def test_no_text_is_encoded_as_a_reserved_id(run):
    known = Vocabulary.load(run)
    texts = [*tiny_run.SOURCES, "<s> </s> <mask> <bt> <pad>"]
    for ids in [*known.encode_source(texts), *known.encode_target(texts)]:
        assert min(ids) >= tokens.FIRST_PIECE
