"""An exported Hugging Face model is the model, with its tokenizer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny_run
import torch
from exported_models import (
    BEAM,
    GREEDY,
    huggingface,
    native_engine,
    opened_with,
    refused,
    scores,
    some_combinations,
    texts,
)

from mt.config.schema import Languages, VocabularyConfig
from mt.decoding.types import EngineOptions
from mt.special_tokens import END, FIRST_PIECE
from mt.vocabulary.learn import learn_vocabulary

HOSTILE = [
    "</s> <s> <0x41> <mask> <reserved_1> <unk>",
    " a\tb\u3000c\u00a0 ", "ﬁne Ⅳ ①", "🙂 日本語 \x00\x01",
    "", "   ", "a</s>b", "▁a ▁", "▁▁", "x" * 60, "e\u0301 \u0301", "<", "< a <b", "\u2028\x85\x1f.",
    "<unk>", "x<pad>", "<pad></s>", "<0xC3><0xBC>", "< 0x41>", "<2de> Dogs.", "＜/s＞", "<bt", "▁",
    "𝒳 ½ ™", "\u200b\ufeff", "A man\u00ad sleeps", "\\n \\t", '"quoted" — dash…',
]  # fmt: skip


EXPRESSED = {
    "norm": ["pre", "post"],
    "activation": ["relu", "gelu"],
    "tie_embeddings": ["all", "decoder", "none"],
    "scale_embeddings": [True, False],
}


@pytest.mark.parametrize(
    "options", some_combinations(EXPRESSED), ids=lambda o: "-".join(map(str, o.values()))
)
def test_transformers_loads_it_and_gives_the_same_logits(options, subwords, tmp_path):
    from transformers import AutoModelForSeq2SeqLM

    model, opened = opened_with(tmp_path, subwords, steps=0, **options)
    huggingface.export(model, opened, tmp_path / "hf", huggingface.Config())
    theirs = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "hf").eval()
    source = torch.randint(68, 408, (3, 9))
    source[1, 6:] = 0
    target = torch.randint(68, 408, (3, 8))
    with torch.inference_mode():
        ours = model(source, target)
        mask = (source != 0).long()
        found = theirs(source, attention_mask=mask, decoder_input_ids=target).logits
    assert (found - ours).abs().max() < 1e-4 * ours.abs().max()


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_transformers_translates_raw_text_as_we_do(norm, subwords, tmp_path):
    model, opened = opened_with(tmp_path, subwords, norm=norm)
    huggingface.export(model, opened, tmp_path / "hf", huggingface.Config())
    ours = native_engine(model, opened)
    theirs = huggingface.open(tmp_path / "hf", opened)
    assert scores(theirs) == pytest.approx(scores(ours), rel=1e-4)
    for options in (GREEDY, BEAM):
        assert texts(theirs, options) == texts(ours, options)


@pytest.mark.parametrize("beams", [1, 3])
def test_transformers_ends_the_longest_sentences_where_we_do(beams, subwords, tmp_path):
    """A model that has learned nothing goes on until the limit, of a source as long as may be."""
    model, opened = opened_with(tmp_path, subwords, steps=0)
    search = {"max_length_ratio": 0.3, "beams": beams}
    recipe = opened.recipe
    recipe = recipe.model_copy(update={"search": recipe.search.model_copy(update=search)})
    opened = replace(opened, recipe=recipe)
    huggingface.export(model, opened, tmp_path / "hf", huggingface.Config())
    theirs = huggingface.open(tmp_path / "hf", opened)
    most, text = recipe.data.max_length - 1, " ".join(tiny_run.SOURCES)
    begun = [text[:end] for end in range(len(text))]
    lines = [begun[[len(ids) for ids in subwords[True].encode_source(begun)].index(most)], "A boy."]
    ours = texts(native_engine(model, opened), EngineOptions(), lines)
    assert texts(theirs, EngineOptions(), lines) == ours
    assert len(ours[0]) > len(ours[1])


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("markup", ["", "a < b <x> <0x41> <unk> </s> <pad> <2de>"])
def test_their_tokenizer_cuts_hostile_text_as_ours(kind, markup):
    """Also where text that spells the names of other pieces has pieces of its own."""
    config = VocabularyConfig(size=411 if markup else 408, model=kind)
    languages = Languages(source="en", target="de")
    ours = learn_vocabulary(config, languages, [*tiny_run.SOURCES, *[markup] * 3], tiny_run.TARGETS)
    if markup and kind == "unigram":
        assert any("<" in text[1:] for text in ours.pieces_source(range(FIRST_PIECE + 256, 411)))
    theirs = huggingface.tokenizer(ours, 1024)
    lines = [*HOSTILE, *tiny_run.SOURCES, *tiny_run.TARGETS]
    expected = [[*ids, END] for ids in ours.encode_source(lines)]
    assert theirs(lines).input_ids == expected
    folded = ours.normalise_source(lines)
    for ids, text in zip(expected, folded, strict=True):
        if "▁" not in text:
            assert theirs.decode(ids, skip_special_tokens=True) == text


def test_what_marian_and_pegasus_lack_is_refused_all_at_once(subwords, tmp_path):
    options = {"norm_kind": "rms", "activation": "swiglu", "positions": "none"}
    _, opened = opened_with(tmp_path, subwords, joint=False, steps=0, **options)
    message = refused(huggingface, opened)
    for key in ("model.norm_kind", "model.activation", "model.positions", "vocabulary.joint"):
        assert key in message
