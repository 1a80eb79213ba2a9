"""The tokenizer of an export to transformers: SentencePiece's pieces of source text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mt.special_tokens import BEGIN, END, FIRST_PIECE, PAD, UNK
from mt.vocabulary.normalization import INVISIBLE, JOINERS, TAGS

if TYPE_CHECKING:
    from mt.vocabulary.vocabulary import Vocabulary

SPACES = "\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""The white space of Python's str.split, as the inside of a regular expression class."""
NEVER = -1e4
"""Score of pieces that no text may become: below that of any other segmentation."""


def _unescape(pattern: str) -> str:
    """Write the escapes of a pattern as characters: Oniguruma has no `\U0001f3f4`."""
    return pattern.encode().decode("unicode_escape")


def tokenizer(vocabulary: Vocabulary, max_length: int) -> Any:
    """A tokenizer of source text with the ids of a joint SentencePiece vocabulary; adds `</s>`."""
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
    )
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    proto = sentencepiece_model_pb2.ModelProto.FromString(vocabulary.source.content)
    names = vocabulary.pieces_source(range(vocabulary.source_size))
    model, texts = _segmentation_model(proto, names)
    result = Tokenizer(model)
    dropped = () if vocabulary.format == 1 else (INVISIBLE, JOINERS, TAGS)
    result.normalizer = normalizers.Sequence([
        *(normalizers.Replace(Regex(_unescape(pattern)), "") for pattern in dropped),
        normalizers.NFKC(), normalizers.Replace(Regex(f"[{SPACES}]+"), " "), normalizers.Strip(),
        normalizers.Prepend("▁"), normalizers.Replace(" ", "▁"),
    ])  # fmt: skip
    splits = [pre_tokenizers.Split("▁", "merged_with_next")]
    if isinstance(model, models.Unigram):  # a BPE makes texts only, by its merges
        cuts = _cut_names(sorted(set(names) - set(texts)), texts)
        splits.append(pre_tokenizers.Split(Regex(cuts), "merged_with_previous"))
    result.pre_tokenizer = pre_tokenizers.Sequence(splits)
    result.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    result.post_processor = TemplateProcessing(
        single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", END)]
    )
    result.add_special_tokens([AddedToken(names[i], normalized=False) for i in special_ids()])
    return PreTrainedTokenizerFast(
        tokenizer_object=result,
        pad_token=names[PAD],
        unk_token=names[UNK],
        bos_token=names[BEGIN],
        eos_token=names[END],
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )


def _segmentation_model(proto: Any, names: Sequence[str]) -> tuple[Any, list[str]]:
    """The unigram or BPE model of words, and the pieces that are text."""
    from tokenizers import models

    scores = {
        name: piece.score
        for name, piece in zip(names, proto.pieces, strict=True)
        if piece.type == piece.NORMAL
    }
    if proto.trainer_spec.model_type == proto.trainer_spec.UNIGRAM:
        pieces = [(name, scores.get(name, NEVER)) for name in names]
        return models.Unigram(pieces, unk_id=UNK, byte_fallback=True), list(scores)
    merges = [
        (left, right)
        for name in sorted(scores, key=lambda name: -scores[name])
        for left, right in ((name[:i], name[i:]) for i in range(1, len(name)))
        if left in scores and right in scores
    ]
    ids = {name: i for i, name in enumerate(names)}
    model = models.BPE(ids, merges, unk_token=names[UNK], fuse_unk=False, byte_fallback=True)
    return model, list(scores)


def _cut_names(names: Sequence[str], texts: Sequence[str]) -> str:
    """A pattern of the beginnings of names in text, where a cut keeps them apart from the rest.

    `<0x41>` in text is no byte, and `</s>` no end: no name of another piece may be found there.
    Each is cut where no piece that is text could lie across, so that all else is found as before.
    """

    def lies_across(text: str, name: str, cut: int) -> bool:
        if name[cut - 1 : cut + 1] not in text:  # decides nearly all at once
            return False
        for start in range(cut - len(text) + 1, cut):  # of the text, as seen from the name
            here = range(max(0, start), min(len(name), start + len(text)))
            if all(text[place - start] == name[place] for place in here):
                return True
        return False

    patterns = []
    for name in names:
        cuts = range(1, len(name))
        free = (cut for cut in cuts if not any(lies_across(text, name, cut) for text in texts))
        cut = next(free, 1)
        patterns.append(f"{re.escape(name[:cut])}(?={re.escape(name[cut:])})")
    return "|".join(patterns)


def special_ids() -> list[int]:
    """Ids that no translation contains."""
    return [i for i in range(FIRST_PIECE) if i != END]
