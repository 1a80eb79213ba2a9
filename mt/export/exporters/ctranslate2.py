"""CTranslate2: the fast engine for processors (https://github.com/OpenNMT/CTranslate2).

The folder holds their model.bin, config.json and vocabularies, written by their own classes, and
beside these what `mt` needs to translate with it: mt.json, config.yaml and the vocabulary.

Legend: V vocabulary, D model width, P positions.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mt.checkpoints import run_directory
from mt.config.section import Variant
from mt.errors import ConfigError, MachineError
from mt.interfaces import Seq2Seq
from mt.runtime import files

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = 1
POSITIONS = 1024
"""Fewest positions of a table that the model itself does not bound."""


class Config(Variant):
    """How the weights are stored; any processor can translate with any of these."""

    kind: str = "ctranslate2"
    quantization: Literal[
        "float32", "int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16",
        "bfloat16",
    ] = "float32"  # fmt: skip
    """Type of the stored weights; `int8`: matrices in 8 bits, the rest in 32."""


def check(opened: run_directory.LoadedModel, config: Config) -> None:
    """Refuse what CTranslate2 cannot express.

    Raises:
        ConfigError: it is another model than the transformer, or its attention is not scaled;
            names the key.
        MachineError: ctranslate2 is not installed.
    """
    kind = opened.recipe.model.kind
    if kind != "transformer":
        what = f"ctranslate2 cannot express the model {kind}"
        raise ConfigError("EXPORT-KIND", "model.kind", what, "export it --to bundle")
    model: Any = opened.recipe.model
    if not model.scale_attention:
        what = "ctranslate2 cannot express false: it scales what queries and keys give"
        raise ConfigError("EXPORT-KIND", "model.scale_attention", what, "export it --to bundle")
    if model.head_gates is not None:
        what = f"ctranslate2 cannot express head gates of kind {model.head_gates.kind}"
        advice = "mt prune RUN --heads closed first"
        raise ConfigError("EXPORT-KIND", "model.head_gates", what, advice)
    if model.layer_heads is not None:
        what = "ctranslate2 cannot express layers of different numbers of heads"
        advice = "prune without --uneven, or export it --to bundle"
        raise ConfigError("EXPORT-KIND", "model.layer_heads", what, advice)
    try:
        import ctranslate2  # noqa: F401
    except ImportError:
        advice = "pip install 'mt[ctranslate2]'"
        raise MachineError("CTRANSLATE2", "--to", "it is not installed", advice) from None


def export(model: Seq2Seq, opened: run_directory.LoadedModel, path: Path, config: Config) -> None:
    """Write the model into a new folder.

    Args:
        model: a Transformer with the weights to translate with.
        opened: the run, or what else the model is from.
        path: the folder to write; it is made.
        config: how to store it.
    """
    files.make_folder(path)
    recipe, vocabulary = opened.recipe, opened.vocabulary
    wanted: Any = recipe.model
    rows = wanted.max_length or max(POSITIONS, 4 * recipe.data.max_length)
    spec = specification(model, wanted, rows)
    sides = (vocabulary.pieces_source, vocabulary.source_size), (
        vocabulary.pieces_target, vocabulary.target_size
    )  # fmt: skip
    source, target = (_distinct(pieces(range(size))) for pieces, size in sides)
    spec.register_source_vocabulary(source)
    spec.register_target_vocabulary(target)
    spec.validate()
    spec.optimize(quantization=config.quantization)
    spec.save(str(path))
    vocabulary.save(path)
    run_directory.write_recipe(path, recipe)
    about = {
        "format": FORMAT,
        "languages": recipe.direction.model_dump(),
        "longest": recipe.data.max_length,
        "positions": rows,
        "search": recipe.search.model_dump(mode="json") | {"shortlist": False},  # it has none
        "vocabulary": vocabulary.digest,
        "quantization": config.quantization,
        "step": opened.step,
        "sha256": files.sha256(path / "model.bin"),
    }
    files.write_json(path / "mt.json", about)


def _distinct(pieces: list[str]) -> list[str]:
    """Pieces by which an id can be told; a foreign vocabulary may have a `<s>` of its own."""
    counts = Counter(pieces)
    seen: set[str] = set()
    for number, piece in enumerate(pieces):
        if counts[piece] > 1 and piece in seen:
            pieces[number] = f"{piece}#{number}"
        seen.add(piece)
    return pieces


# ------------------------------------------------------------------------------- weights


def specification(model: Any, config: Any, rows: int) -> Any:
    """Their TransformerSpec with the weights of ours.

    Args:
        model: a Transformer.
        config: its section of the recipe.
        rows: positions of the tables.
    """
    from ctranslate2 import specs

    activations = specs.Activation
    shared = {
        "num_heads": config.n_heads,
        "pre_norm": config.norm == "pre",
        "activation": {
            "relu": activations.RELU, "gelu": activations.GELU, "swiglu": activations.SWISH,
        }[config.activation],
        "ffn_glu": config.activation == "swiglu",
        "rms_norm": config.norm_kind == "rms",
    }  # fmt: skip
    if config.d_head is not None:
        shared["head_dim"] = config.d_head
    rotary = config.positions == "rotary"
    if rotary:  # all numbers of a head; 2i and 2i+1 turn together, as in ours
        shared |= {"rotary_dim": 0, "rotary_interleave": True, "rotary_base": 10_000}
    spec = specs.TransformerSpec(
        specs.TransformerEncoderSpec(config.encoder_layers, **shared),
        specs.TransformerDecoderSpec(
            config.decoder_layers,
            alignment_layer=max(0, config.decoder_layers - 2),
            alignment_heads=config.n_heads,
            **shared,
        ),
    )
    spec.config.layer_norm_epsilon = 1e-5
    stacks = (
        (spec.encoder, model.encoder, model.encoder_norm, model.source_positions),
        (spec.decoder, model.decoder, model.decoder_norm, model.target_positions),
    )
    for stack, layers, final, positions in stacks:
        stack.scale_embeddings = config.scale_embeddings
        if not rotary:
            stack.position_encodings.encodings = _positions(positions, rows)
        if config.norm == "pre":
            _norm(stack.layer_norm, final)
        for layer, ours in zip(stack.layer, layers, strict=True):
            _layer(layer, ours)
    table = model.target_embedding if model.source_embedding is None else model.source_embedding
    spec.encoder.embeddings[0].weight = _array(table.weight)
    spec.decoder.embeddings.weight = _array(model.target_embedding.weight)
    weight, bias = model.output()
    spec.decoder.projection.weight = _array(weight)
    if bias is not None:
        spec.decoder.projection.bias = _array(bias)
    return spec


def _layer(layer: Any, ours: Any) -> None:
    """An encoder or a decoder layer."""
    norms = [sublayer.norm for sublayer in ours.sublayers]
    own = ours.self_attention
    _linear(layer.self_attention.linear[0], own.query, own.key_value)
    _linear(layer.self_attention.linear[1], own.output)
    _norm(layer.self_attention.layer_norm, norms[0])
    if len(norms) == 3:
        cross = ours.cross_attention
        _linear(layer.attention.linear[0], cross.query)
        _linear(layer.attention.linear[1], cross.key_value)
        _linear(layer.attention.linear[2], cross.output)
        _norm(layer.attention.layer_norm, norms[1])
    inner, gate = ours.feed_forward.inner, ours.feed_forward.gate
    _norm(layer.ffn.layer_norm, norms[-1])
    _linear(layer.ffn.linear_0, inner if gate is None else gate)
    if gate is not None:
        _linear(layer.ffn.linear_0_noact, inner)
    _linear(layer.ffn.linear_1, ours.feed_forward.outer)


def _linear(linear: Any, *ours: nn.Linear) -> None:
    """One matrix of theirs from one or several of ours, one below the other."""
    import numpy as np

    linear.weight = np.concatenate([_array(each.weight) for each in ours])
    linear.bias = np.concatenate([_array(each.bias) for each in ours])


def _norm(norm: Any, ours: Any) -> None:
    norm.gamma = _array(ours.weight)
    if getattr(ours, "bias", None) is not None:
        norm.beta = _array(ours.bias)


def _positions(ours: Any, rows: int) -> Any:
    """The table [P, D] that is added to the embeddings."""
    import torch

    return _array(ours(torch.zeros(1, rows, ours.d_model))[0])


def _array(tensor: Tensor) -> Any:
    return tensor.detach().float().cpu().numpy()
