"""Hugging Face transformers: a folder that AutoModelForSeq2SeqLM and AutoTokenizer load.

A post-norm model becomes a Marian, a pre-norm one a Pegasus. Both put the sines of the positions
before the cosines, where ours interleave. So the model width is permuted throughout, which changes
no product.

Legend: V vocabulary, D model width, P positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt.checkpoints import run_directory
from mt.config.schema import SearchConfig
from mt.config.section import Variant
from mt.data.pairs import Pair
from mt.decoding.batching import length_batches
from mt.decoding.text_translator import search_config
from mt.decoding.types import EngineOptions, Score, Translation
from mt.errors import ConfigError, MachineError
from mt.export.exporters._huggingface.tokenizer import special_ids, tokenizer
from mt.interfaces import Seq2Seq
from mt.runtime import files
from mt.special_tokens import BEGIN, END, PAD

if TYPE_CHECKING:
    from torch import Tensor


POSITIONS = 1024
"""Fewest positions of the table."""
BATCH = 4096
"""Padded source positions of a batch when the export is verified."""
TOKEN_IDS = {
    "pad_token_id": PAD, "bos_token_id": BEGIN, "eos_token_id": END,
    "decoder_start_token_id": BEGIN,
}  # fmt: skip


class Config(Variant):
    """No settings: the architecture follows from the model."""

    kind: str = "huggingface"


def check(opened: run_directory.LoadedModel, config: Config) -> None:
    """Refuse what neither Marian nor Pegasus expresses.

    Raises:
        ConfigError: names each key that they cannot express.
        MachineError: transformers is not installed.
    """
    model: Any = opened.recipe.model
    vocabulary = opened.vocabulary
    advice = "export it --to bundle"
    if model.kind != "transformer":
        what = f"huggingface cannot express the model {model.kind}"
        raise ConfigError("EXPORT-KIND", "model.kind", what, advice)
    allowed: dict[str, list[Any]] = {
        "norm_kind": ["layer"], "activation": ["relu", "gelu"], "positions": ["sinusoidal"],
        "scale_attention": [True],
    }  # fmt: skip
    problems = [
        (f"model.{key}", f"huggingface cannot express {str(value).lower()} in Marian or Pegasus")
        for key, values in allowed.items()
        if (value := getattr(model, key)) not in values
    ]
    if model.head_gates is not None:
        what = f"huggingface cannot express head gates of kind {model.head_gates.kind}"
        problems.append(("model.head_gates", what))
    if model.layer_heads or model.head_width * model.n_heads != model.d_model:
        what = "huggingface cannot express heads that together are not d_model wide"
        problems.append(("model.layer_heads" if model.layer_heads else "model.d_head", what))
    if vocabulary.languages:
        several = ", ".join(vocabulary.languages)
        problems.append(("languages", f"huggingface's tokenizer cannot say which of {several}"))
    if not vocabulary.joint:
        problems.append(("vocabulary.joint", "huggingface needs one vocabulary for both sides"))
    if vocabulary.kind != "sentencepiece":
        what = f"huggingface has no tokenizer of kind {vocabulary.kind}"
        problems.append(("vocabulary.kind", what))
    elif vocabulary.source.offset:  # type: ignore[attr-defined]
        what = "huggingface cannot express one that mt did not learn"
        problems.append(("vocabulary.path", what))
    if problems:
        (where, what), *others = problems
        raise ConfigError("EXPORT-KIND", where, what, f"{advice} or --to ctranslate2", others)
    try:
        import transformers  # noqa: F401
    except ImportError:
        advice = "pip install 'mt[huggingface]'"
        raise MachineError("HUGGINGFACE", "--to", "it is not installed", advice) from None


def export(model: Seq2Seq, opened: run_directory.LoadedModel, path: Path, config: Config) -> None:
    """Write a Transformer and its tokenizer into the new folder `path`."""
    files.make_folder(path)
    _hide_progress_bars()
    theirs = _build_model(opened)
    theirs.load_state_dict(weights(model, opened.recipe.model, theirs.config), strict=True)
    theirs.generation_config = _generation_config(opened)
    theirs.save_pretrained(path)
    tokenizer(opened.vocabulary, theirs.config.max_position_embeddings).save_pretrained(path)


def _build_model(opened: run_directory.LoadedModel) -> Any:
    """A Marian or Pegasus of the same sizes, with random weights."""
    import transformers

    model: Any = opened.recipe.model
    tied = model.tie_embeddings == "all" or (
        model.tie_embeddings == "auto" and opened.vocabulary.joint
    )
    post = model.norm == "post"
    config_class = transformers.MarianConfig if post else transformers.PegasusConfig
    config = config_class(
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
        **TOKEN_IDS,
        forced_eos_token_id=None,
        tie_word_embeddings=tied,
        **({"share_encoder_decoder_embeddings": tied} if post else {}),
    )
    if post:
        return transformers.MarianMTModel(config)
    return transformers.PegasusForConditionalGeneration(config)


def _generation_config(opened: run_directory.LoadedModel) -> Any:
    """The search of the recipe; greedy for a search that transformers lacks."""
    import transformers

    search = opened.recipe.search
    pieces = opened.recipe.data.max_length - 1
    longest = int(search.max_length_ratio * pieces) + search.max_length_extra
    return transformers.GenerationConfig(
        **generation_settings(search),
        max_length=longest + 2,  # with <s> and </s>
        suppress_tokens=special_ids(),
        **TOKEN_IDS,
    )


SETTINGS = {
    "min_length": "min_new_tokens",
    "repetition_penalty": "repetition_penalty",
    "no_repeat_ngram": "no_repeat_ngram_size",
}
BEAM_SETTINGS = {"beams": "num_beams", "length_penalty": "length_penalty"}
SAMPLING_SETTINGS = {
    "temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "epsilon": "epsilon_cutoff",
}  # fmt: skip
"""transformers' names of our search settings."""


def generation_settings(search: SearchConfig) -> dict[str, Any]:
    """The settings of transformers for a search of ours."""
    names = dict(SETTINGS)
    settings: dict[str, Any] = {"num_beams": 1, "do_sample": search.kind == "sampling"}
    if search.kind == "sampling":
        names |= SAMPLING_SETTINGS
    elif getattr(search, "beams", 1) > 1:  # with one beam transformers refuses those of beams
        names |= BEAM_SETTINGS
        settings["early_stopping"] = getattr(search, "stop", "finished") == "finished" or "never"
    own = {theirs: getattr(search, ours) for ours, theirs in names.items() if hasattr(search, ours)}
    return settings | own


def _check_search(search: SearchConfig) -> None:
    """Refuse a search that transformers performs in another way, or not at all.

    Raises:
        ConfigError: names the setting.
    """
    if search.kind not in ("beam", "greedy"):
        what = f"transformers has no {search.kind} search of the same output"
        raise ConfigError("ENGINE", "search.kind", what, "take beam or greedy")
    for key in ("patience", "length_norm", "coverage_penalty", "repetition_penalty"):
        field = type(search).model_fields.get(key)
        if field is not None and getattr(search, key) != field.default:
            what = "transformers does otherwise with it"
            raise ConfigError("ENGINE", f"search.{key}", what, "leave it out")


# ------------------------------------------------------------------------------- weights


def weights(model: Any, section: Any, config: Any) -> dict[str, Tensor]:
    """The weights of a Transformer under their names, the model width permuted."""
    import torch

    width = torch.arange(section.d_model)
    order = torch.cat((width[0::2], width[1::2]))  # [D] sines, then cosines
    table = model.target_embedding if model.source_embedding is None else model.source_embedding
    weight, bias = model.output()
    tensors: dict[str, Tensor] = {
        "model.shared.weight": table.weight[:, order],
        "model.encoder.embed_tokens.weight": table.weight[:, order],
        "model.decoder.embed_tokens.weight": model.target_embedding.weight[:, order],
        "lm_head.weight": weight[:, order],
        "final_logits_bias": (torch.zeros(len(weight)) if bias is None else bias)[None],
    }
    if config.model_type == "marian" and not config.share_encoder_decoder_embeddings:
        del tensors["model.shared.weight"]  # each side has its own
    rows = torch.zeros(1, config.max_position_embeddings, section.d_model)
    for side, layers, positions, final in (
        ("encoder", model.encoder, model.source_positions, model.encoder_norm),
        ("decoder", model.decoder, model.target_positions, model.decoder_norm),
    ):
        tensors[f"model.{side}.embed_positions.weight"] = positions(rows)[0][:, order]
        if section.norm == "pre":
            tensors |= _norm(f"model.{side}.layer_norm", final, order)
        for number, layer in enumerate(layers):
            tensors |= _layer(f"model.{side}.layers.{number}", layer, order)
    return {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}


def _layer(name: str, layer: Any, order: Tensor) -> dict[str, Tensor]:
    norms = [sublayer.norm for sublayer in layer.sublayers]
    tensors = _attention(f"{name}.self_attn", layer.self_attention, order)
    tensors |= _norm(f"{name}.self_attn_layer_norm", norms[0], order)
    if len(norms) == 3:
        tensors |= _attention(f"{name}.encoder_attn", layer.cross_attention, order)
        tensors |= _norm(f"{name}.encoder_attn_layer_norm", norms[1], order)
    tensors |= _norm(f"{name}.final_layer_norm", norms[-1], order)
    inner, outer = layer.feed_forward.inner, layer.feed_forward.outer
    return tensors | {
        f"{name}.fc1.weight": inner.weight[:, order],
        f"{name}.fc1.bias": inner.bias,
        f"{name}.fc2.weight": outer.weight[order],
        f"{name}.fc2.bias": outer.bias[order],
    }


def _attention(name: str, attention: Any, order: Tensor) -> dict[str, Tensor]:
    key, value = attention.key_value.weight.chunk(2)
    key_bias, value_bias = attention.key_value.bias.chunk(2)
    return {
        f"{name}.q_proj.weight": attention.query.weight[:, order],
        f"{name}.q_proj.bias": attention.query.bias,
        f"{name}.k_proj.weight": key[:, order],
        f"{name}.k_proj.bias": key_bias,
        f"{name}.v_proj.weight": value[:, order],
        f"{name}.v_proj.bias": value_bias,
        f"{name}.out_proj.weight": attention.output.weight[order],
        f"{name}.out_proj.bias": attention.output.bias[order],
    }


def _norm(name: str, norm: Any, order: Tensor) -> dict[str, Tensor]:
    return {f"{name}.weight": norm.weight[order], f"{name}.bias": norm.bias[order]}


# ------------------------------------------------------------------------- verification


def open(path: Path, opened: run_directory.LoadedModel) -> ExportedModel:
    """The export, to be compared with its original."""
    return ExportedModel(path, opened)


def _hide_progress_bars() -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()


class ExportedModel:
    """An `Engine` on transformers alone.

    Only two things come from the original: its vocabulary encodes forced targets, and its search
    limits the length of each translation.
    """

    def __init__(self, path: Path, opened: run_directory.LoadedModel) -> None:
        import transformers

        self.vocabulary, self.search = opened.vocabulary, opened.recipe.search
        _hide_progress_bars()
        self.model = transformers.AutoModelForSeq2SeqLM.from_pretrained(
            path, local_files_only=True
        ).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)

    def translate(
        self, lines: Iterable[str], options: EngineOptions | None = None
    ) -> Iterator[Translation]:
        """A translation for each line, in order, by the search of the recipe or a given one."""
        import torch

        texts = list(lines)
        search = search_config(self.search, (options or EngineOptions()).search)
        _check_search(search)
        settings = {"early_stopping": None, "length_penalty": None, **generation_settings(search)}
        beams = settings["num_beams"]
        translations: dict[int, Translation] = {}
        lengths = [len(ids) for ids in self.tokenizer(texts).input_ids] if texts else []
        ratio, extra = self.search.max_length_ratio, self.search.max_length_extra
        for rows in length_batches(lengths, BATCH // beams):
            batch = self.tokenizer([texts[row] for row in rows], padding=True, return_tensors="pt")
            # Source lengths and limits both count </s>.
            limits = torch.tensor([int(ratio * (lengths[row] - 1)) + extra + 1 for row in rows])
            processor = partial(_force_end_at, limits.repeat_interleave(beams))
            with torch.inference_mode():
                outputs = self.model.generate(**batch, **settings, logits_processor=[processor])
            decoded = self.tokenizer.batch_decode(outputs, skip_special_tokens=True)
            for row, text, ids in zip(rows, decoded, outputs.tolist(), strict=True):
                end = ids.index(END) if END in ids else None  # None: the maximum length ended it
                pieces = self.vocabulary.pieces_target(ids[1:end])
                translations[row] = Translation(text, tokens=tuple(pieces))
        return (translations[row] for row in range(len(texts)))

    def score(self, pairs: Iterable[Pair]) -> Iterator[Score]:
        """The forced score of each pair's target."""
        import torch

        for pair in pairs:
            (ids,) = self.vocabulary.encode_target([str(pair.target)])
            batch = self.tokenizer([str(pair.source)], return_tensors="pt")
            inputs, labels = torch.tensor([[BEGIN, *ids]]), torch.tensor([[*ids, END]])
            with torch.inference_mode():
                logits = self.model(**batch, decoder_input_ids=inputs, use_cache=False).logits
            log_probs = logits.float().log_softmax(-1).gather(-1, labels[..., None])[0, :, 0]
            values = tuple(log_probs.tolist())
            yield Score(sum(values), len(values), values)


def _force_end_at(limits: Tensor, ids: Tensor, scores: Tensor) -> Tensor:
    """Scores [R, V] that allow only `</s>` in rows of ids [R, t] that have reached limits [R].

    Limits count `</s>` but not `<s>`.
    """
    import torch

    end_only = torch.full_like(scores, -torch.inf)
    end_only[:, END] = scores[:, END]
    return torch.where((ids.size(1) >= limits)[:, None], end_only, scores)
