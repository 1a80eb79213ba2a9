"""Hugging Face transformers: a folder that AutoModelForSeq2SeqLM and AutoTokenizer load.

A post-norm model is Marian's shape, a pre-norm one Pegasus's. Both put the sines of the paper's
positions before the cosines where we interleave them: the model's width is permuted throughout,
which changes no product.

Legend: V vocabulary, D model width, P positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt.checkpoints import run_directory
from mt.config.section import Variant
from mt.data.pairs import Pair
from mt.decoding.batching import length_batches
from mt.decoding.types import EngineOptions, Score, Translation
from mt.errors import ConfigError, MachineError
from mt.interfaces import Seq2Seq
from mt.runtime import files
from mt.special_tokens import BEGIN, END, FIRST_PIECE, PAD, UNK

if TYPE_CHECKING:
    from torch import Tensor

    from mt.vocabulary.vocabulary import Vocabulary

POSITIONS = 1024
"""Fewest positions of the table."""
BATCH = 4096
"""Padded source positions of a batch when what was exported is tried."""


class Config(Variant):
    """There is nothing to choose: the shape follows from the model."""

    kind: str = "huggingface"


def check(opened: run_directory.LoadedModel, config: Config) -> None:
    """Refuse what neither Marian nor Pegasus expresses.

    Raises:
        ConfigError: names each key that is in the way.
        MachineError: transformers is not installed.
    """
    model: Any = opened.recipe.model
    vocabulary = opened.vocabulary
    other = "export it --to bundle"
    if model.kind != "transformer":
        what = f"huggingface cannot express the model {model.kind}"
        raise ConfigError("EXPORT-KIND", "model.kind", what, other)
    known: dict[str, list[Any]] = {
        "norm_kind": ["layer"], "activation": ["relu", "gelu"], "positions": ["sinusoidal"],
        "scale_attention": [True],
    }  # fmt: skip
    wrong = [
        (f"model.{key}", f"huggingface cannot express {str(value).lower()} in Marian or Pegasus")
        for key, values in known.items()
        if (value := getattr(model, key)) not in values
    ]
    if model.head_gates is not None:
        what = f"huggingface cannot express head gates of kind {model.head_gates.kind}"
        wrong.append(("model.head_gates", what))
    if model.layer_heads or model.head_width * model.n_heads != model.d_model:
        what = "huggingface cannot express heads that together are not d_model wide"
        wrong.append(("model.layer_heads" if model.layer_heads else "model.d_head", what))
    if vocabulary.languages:
        several = ", ".join(vocabulary.languages)
        wrong.append(("languages", f"huggingface's tokenizer cannot say which of {several}"))
    if not vocabulary.joint:
        wrong.append(("vocabulary.joint", "huggingface needs one vocabulary for both sides"))
    if vocabulary.kind != "sentencepiece":
        wrong.append(("vocabulary.kind", f"huggingface has no tokenizer of kind {vocabulary.kind}"))
    elif vocabulary.source.offset:  # type: ignore[attr-defined]
        wrong.append(("vocabulary.path", "huggingface cannot express one that mt did not learn"))
    if wrong:
        (where, what), *others = wrong
        raise ConfigError("EXPORT-KIND", where, what, f"{other} or --to ctranslate2", others)
    try:
        import transformers  # noqa: F401
    except ImportError:
        advice = "pip install 'mt[huggingface]'"
        raise MachineError("HUGGINGFACE", "--to", "it is not installed", advice) from None


def export(model: Seq2Seq, opened: run_directory.LoadedModel, path: Path, config: Config) -> None:
    """Write the model and its tokenizer into a new folder.

    Args:
        model: a Transformer with the weights to translate with.
        opened: the run, or what else the model is from.
        path: the folder to write; it is made.
        config: of no consequence.
    """
    files.make_folder(path)
    _quiet()
    ours: Any = opened.recipe.model
    theirs = _empty(opened)
    loaded = theirs.load_state_dict(weights(model, ours, theirs.config), strict=True)
    assert not loaded.missing_keys
    theirs.generation_config = _generation(opened)
    theirs.save_pretrained(path)
    tokenizer(opened.vocabulary, theirs.config.max_position_embeddings).save_pretrained(path)


def _empty(opened: run_directory.LoadedModel) -> Any:
    """Their model of the same sizes."""
    import transformers

    model: Any = opened.recipe.model
    tied = _tied(model, opened.vocabulary)
    kind = (
        ("Marian", "MTModel") if model.norm == "post" else ("Pegasus", "ForConditionalGeneration")
    )
    more = {} if model.norm == "pre" else {"share_encoder_decoder_embeddings": tied}
    config = getattr(transformers, f"{kind[0]}Config")(
        vocab_size=opened.vocabulary.source_size,
        d_model=model.d_model,
        encoder_layers=model.encoder_layers,
        decoder_layers=model.decoder_layers,
        encoder_attention_heads=model.n_heads,
        decoder_attention_heads=model.n_heads,
        encoder_ffn_dim=model.d_ff,
        decoder_ffn_dim=model.d_ff,
        activation_function=model.activation,
        dropout=model.dropout,
        attention_dropout=model.attention_dropout,
        activation_dropout=model.activation_dropout,
        scale_embedding=model.scale_embeddings,
        max_position_embeddings=max(POSITIONS, 4 * opened.recipe.data.max_length),
        pad_token_id=PAD,
        bos_token_id=BEGIN,
        eos_token_id=END,
        decoder_start_token_id=BEGIN,
        forced_eos_token_id=None,
        tie_word_embeddings=tied,
        **more,
    )
    return getattr(transformers, f"{kind[0]}{kind[1]}")(config)


def _tied(model: Any, vocabulary: Vocabulary) -> bool:
    """Whether source, target and output share their weights."""
    return model.tie_embeddings == "all" or (model.tie_embeddings == "auto" and vocabulary.joint)


def _generation(opened: run_directory.LoadedModel) -> Any:
    """The search of the recipe; greedy where it is none that they have."""
    import transformers

    search = opened.recipe.search
    pieces = opened.recipe.data.max_length - 1
    longest = int(search.max_length_ratio * pieces) + search.max_length_extra
    beams = getattr(search, "beams", 1)
    # Without beams they refuse what only beams have.
    of_beams = {"length_penalty": getattr(search, "length_penalty", 0.0), "early_stopping": True}
    return transformers.GenerationConfig(
        num_beams=beams,
        **(of_beams if beams > 1 else {}),
        max_length=longest + 2,  # of a translation, <s> and </s>
        suppress_tokens=_never(),
        pad_token_id=PAD,
        bos_token_id=BEGIN,
        eos_token_id=END,
        decoder_start_token_id=BEGIN,
    )


def _never() -> list[int]:
    """Ids that no translation holds."""
    return [i for i in range(FIRST_PIECE) if i != END]


# ------------------------------------------------------------------------------- weights


def weights(model: Any, ours: Any, config: Any) -> dict[str, Tensor]:
    """The weights under their names, the model's width permuted.

    Args:
        model: a Transformer.
        ours: its section of the recipe.
        config: theirs.
    """
    import torch

    width = torch.arange(ours.d_model)
    order = torch.cat((width[0::2], width[1::2]))  # [D] sines, then cosines
    found: dict[str, Tensor] = {}
    table = model.target_embedding if model.source_embedding is None else model.source_embedding
    weight, bias = model.output()
    for name, each in (
        ("model.shared", table),
        ("model.encoder.embed_tokens", table),
        ("model.decoder.embed_tokens", model.target_embedding),
    ):
        found[f"{name}.weight"] = each.weight[:, order]
    if config.model_type == "marian" and not config.share_encoder_decoder_embeddings:
        del found["model.shared.weight"]  # each side has its own
    found["lm_head.weight"] = weight[:, order]
    found["final_logits_bias"] = (torch.zeros(len(weight)) if bias is None else bias)[None]
    rows = torch.zeros(1, config.max_position_embeddings, ours.d_model)
    for side, layers, positions, final in (
        ("encoder", model.encoder, model.source_positions, model.encoder_norm),
        ("decoder", model.decoder, model.target_positions, model.decoder_norm),
    ):
        found[f"model.{side}.embed_positions.weight"] = positions(rows)[0][:, order]
        if ours.norm == "pre":
            found |= _norm(f"model.{side}.layer_norm", final, order)
        for number, layer in enumerate(layers):
            found |= _layer(f"model.{side}.layers.{number}", layer, order)
    return {name: tensor.detach().float().cpu().contiguous() for name, tensor in found.items()}


def _layer(name: str, layer: Any, order: Tensor) -> dict[str, Tensor]:
    norms = [sublayer.norm for sublayer in layer.sublayers]
    found = _attention(f"{name}.self_attn", layer.self_attention, order)
    found |= _norm(f"{name}.self_attn_layer_norm", norms[0], order)
    if len(norms) == 3:
        found |= _attention(f"{name}.encoder_attn", layer.cross_attention, order)
        found |= _norm(f"{name}.encoder_attn_layer_norm", norms[1], order)
    found |= _norm(f"{name}.final_layer_norm", norms[-1], order)
    inner, outer = layer.feed_forward.inner, layer.feed_forward.outer
    return found | {
        f"{name}.fc1.weight": inner.weight[:, order],
        f"{name}.fc1.bias": inner.bias,
        f"{name}.fc2.weight": outer.weight[order],
        f"{name}.fc2.bias": outer.bias[order],
    }


def _attention(name: str, ours: Any, order: Tensor) -> dict[str, Tensor]:
    key, value = ours.key_value.weight.chunk(2)
    key_bias, value_bias = ours.key_value.bias.chunk(2)
    return {
        f"{name}.q_proj.weight": ours.query.weight[:, order],
        f"{name}.q_proj.bias": ours.query.bias,
        f"{name}.k_proj.weight": key[:, order],
        f"{name}.k_proj.bias": key_bias,
        f"{name}.v_proj.weight": value[:, order],
        f"{name}.v_proj.bias": value_bias,
        f"{name}.out_proj.weight": ours.output.weight[order],
        f"{name}.out_proj.bias": ours.output.bias[order],
    }


def _norm(name: str, ours: Any, order: Tensor) -> dict[str, Tensor]:
    return {f"{name}.weight": ours.weight[order], f"{name}.bias": ours.bias[order]}


# ----------------------------------------------------------------------------- tokenizer

SPACES = "\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""What Python's str.split takes for white space, as the inside of a regular expression."""
NEVER = -1e4
"""Score of pieces that no text becomes: less than that of any way round them."""


def tokenizer(vocabulary: Vocabulary, longest: int) -> Any:
    """A tokenizer with the ids of ours, for the source; it adds `</s>`.

    Args:
        vocabulary: a joint one of SentencePiece.
        longest: most ids of a sentence.
    """
    from tokenizers import AddedToken, Regex, Tokenizer
    from tokenizers import decoders as d
    from tokenizers import normalizers as n
    from tokenizers import pre_tokenizers as p
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    names = vocabulary.pieces_source(range(vocabulary.source_size))
    model, texts = _model(_proto(vocabulary), names)
    made = Tokenizer(model)
    fold = [n.NFKC(), n.Replace(Regex(f"[{SPACES}]+"), " "), n.Strip()]
    made.normalizer = n.Sequence([*fold, n.Prepend("▁"), n.Replace(" ", "▁")])
    steps = [p.Split("▁", "merged_with_next")]
    if not any("<" in text and text != "<" for text in texts):
        steps.append(p.Split("<", "isolated"))  # so that "<0x41>" is text, and no byte
    made.pre_tokenizer = p.Sequence(steps)
    made.decoder = d.Sequence([d.Replace("▁", " "), d.ByteFallback(), d.Fuse(), d.Strip(" ", 1, 0)])
    made.post_processor = TemplateProcessing(
        single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", END)]
    )
    made.add_special_tokens([AddedToken(names[i], normalized=False) for i in _never()])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token=names[PAD],
        unk_token=names[UNK],
        bos_token=names[BEGIN],
        eos_token=names[END],
        model_max_length=longest,
        model_input_names=["input_ids", "attention_mask"],
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )


def _proto(vocabulary: Vocabulary) -> Any:
    """The SentencePiece model as its own message."""
    from sentencepiece import sentencepiece_model_pb2

    return sentencepiece_model_pb2.ModelProto.FromString(vocabulary.source.content)


def _model(proto: Any, names: Sequence[str]) -> tuple[Any, list[str]]:
    """What cuts words into pieces, and the pieces that are text."""
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


# ------------------------------------------------------------------------- what it gives


def open(path: Path, opened: run_directory.LoadedModel) -> Exported:
    """What was exported, to be compared with what it is of."""
    return Exported(path, opened)


def _quiet() -> None:
    """No progress bars for a few megabytes."""
    from transformers.utils import logging

    logging.disable_progress_bar()


class Exported:
    """Translates and scores text with transformers alone; see `mt.contracts.Engine`.

    Args:
        path: what `export` wrote.
        opened: what it is of: its vocabulary cuts targets, which their tokenizer is not made
            for, and its search limits the length of each sentence.
    """

    def __init__(self, path: Path, opened: run_directory.LoadedModel) -> None:
        import transformers

        self.vocabulary, self.search = opened.vocabulary, opened.recipe.search

        _quiet()
        model, cutter = transformers.AutoModelForSeq2SeqLM, transformers.AutoTokenizer
        self.model = model.from_pretrained(path, local_files_only=True).eval()
        self.tokenizer = cutter.from_pretrained(path, local_files_only=True)

    def translate(
        self, lines: Iterable[str], options: EngineOptions | None = None
    ) -> Iterator[Translation]:
        """A translation for each line, in order; of the settings it heeds `kind` and `beams`."""
        import torch

        texts = list(lines)
        search = (options or EngineOptions()).search
        beams = int(search.get("beams", self.model.generation_config.num_beams))
        settings: dict[str, Any] = {"num_beams": beams}
        if beams == 1 or search.get("kind") == "greedy":  # which has no use for what beams have
            beams, settings = 1, {"num_beams": 1, "early_stopping": None, "length_penalty": None}
        found: dict[int, Translation] = {}
        lengths = [len(ids) for ids in self.tokenizer(texts).input_ids] if texts else []
        for rows in length_batches(lengths, BATCH // beams):
            batch = self.tokenizer([texts[row] for row in rows], padding=True, return_tensors="pt")
            limits = torch.tensor([self._limit(lengths[row]) for row in rows])
            within = partial(_within, limits.repeat_interleave(beams))
            with torch.inference_mode():
                made = self.model.generate(**batch, **settings, logits_processor=[within])
            decoded = self.tokenizer.batch_decode(made, skip_special_tokens=True)
            for row, text, ids in zip(rows, decoded, made.tolist(), strict=True):
                end = ids.index(END) if END in ids else None  # cut by the model's own limit
                pieces = self.vocabulary.pieces_target(ids[1:end])
                found[row] = Translation(text, tokens=tuple(pieces))
        return (found[row] for row in range(len(texts)))

    def _limit(self, length: int) -> int:
        """Most tokens of a translation of a source of so many ids, `</s>` included in both."""
        return int(self.search.max_length_ratio * (length - 1)) + self.search.max_length_extra + 1

    def score(self, pairs: Iterable[Pair]) -> Iterator[Score]:
        """The forced score of each pair's target, which is cut by our vocabulary."""
        for pair in pairs:
            (ids,) = self.vocabulary.encode_target([str(pair.target)])
            (gains,) = self.force([(str(pair.source), [*ids, END])])
            yield Score(sum(gains), len(gains), tuple(gains))

    def force(self, pairs: Sequence[tuple[str, Sequence[int]]]) -> list[list[float]]:
        """The log-probability of each token of each target, given source text and target ids."""
        import torch

        found = []
        for text, target in pairs:
            batch = self.tokenizer([text], return_tensors="pt")
            labels = torch.tensor([list(target)])
            inputs = torch.tensor([[BEGIN, *target[:-1]]])
            with torch.inference_mode():
                logits = self.model(**batch, decoder_input_ids=inputs, use_cache=False).logits
            gains = logits.float().log_softmax(-1).gather(-1, labels[..., None])
            found.append(gains[0, :, 0].tolist())
        return found


def _within(limits: Tensor, ids: Tensor, scores: Tensor) -> Tensor:
    """Scores [R, V], where nothing but `</s>` may come when a row of ids has reached its limit.

    Args:
        limits: [R] most tokens, `</s>` included, `<s>` not.
        ids: [R, t] `<s>` and what has come since.
        scores: [R, V] of what comes next.
    """
    import torch

    alone = torch.full_like(scores, -torch.inf)
    alone[:, END] = scores[:, END]
    return torch.where((ids.size(1) >= limits)[:, None], alone, scores)
