"""CTranslate2: a fast inference engine for CPUs (https://github.com/OpenNMT/CTranslate2).

The folder has their model.bin, config.json and vocabularies, written by their own classes. Beside
these lies what `mt` needs to translate with it: mt.json, config.yaml and the vocabulary.

Legend: V vocabulary, D model width, P positions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mt.checkpoints import run_directory
from mt.config.section import Variant
from mt.errors import ConfigError, MachineError
from mt.interfaces import Seq2Seq
from mt.runtime import files
from mt.runtime.device import import_ctranslate2

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = 1
POSITIONS = 1024
"""Least number of positions in the table of a model that has no maximum length."""


class Config(Variant):
    """Storage of the weights; any CPU can translate with any of these types."""

    kind: str = "ctranslate2"
    quantization: Literal[
        "float32", "int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16",
        "bfloat16",
    ] = "float32"  # fmt: skip
    """Type of the stored weights; `int8`: matrices in 8 bits, the rest in 32."""


def check(opened: run_directory.LoadedModel, config: Config) -> None:
    """Refuse what CTranslate2 cannot express.

    Raises:
        ConfigError: names the key that CTranslate2 cannot express.
        MachineError: ctranslate2 is not installed.
    """
    model: Any = opened.recipe.model
    bundled = "export it --to bundle"
    if model.kind != "transformer":
        what = f"ctranslate2 cannot express the model {model.kind}"
        raise ConfigError("EXPORT-KIND", "model.kind", what, bundled)
    if not model.scale_attention:
        what = "ctranslate2 cannot express false: it scales what queries and keys give"
        raise ConfigError("EXPORT-KIND", "model.scale_attention", what, bundled)
    if model.head_gates is not None:
        what = f"ctranslate2 cannot express head gates of kind {model.head_gates.kind}"
        advice = "mt prune RUN --heads closed first"
        raise ConfigError("EXPORT-KIND", "model.head_gates", what, advice)
    if model.layer_heads is not None:
        what = "ctranslate2 cannot express layers of different numbers of heads"
        advice = f"prune without --uneven, or {bundled}"
        raise ConfigError("EXPORT-KIND", "model.layer_heads", what, advice)
    try:
        import_ctranslate2()
    except ImportError:
        advice = "pip install 'mt[ctranslate2]'"
        raise MachineError("CTRANSLATE2", "--to", "it is not installed", advice) from None


def export(model: Seq2Seq, opened: run_directory.LoadedModel, path: Path, config: Config) -> None:
    """Write a Transformer into the new folder `path`."""
    files.make_folder(path)
    recipe, vocabulary = opened.recipe, opened.vocabulary
    section: Any = recipe.model
    num_positions = section.max_length or max(POSITIONS, 4 * recipe.data.max_length)
    spec = specification(model, section, num_positions)
    spec.register_source_vocabulary(
        _distinct(vocabulary.pieces_source(range(vocabulary.source_size)))
    )
    spec.register_target_vocabulary(
        _distinct(vocabulary.pieces_target(range(vocabulary.target_size)))
    )
    spec.validate()
    spec.optimize(quantization=config.quantization)
    spec.save(str(path))
    vocabulary.save(path)
    run_directory.write_recipe(path, recipe)
    metadata = {
        "format": FORMAT,
        "languages": recipe.direction.model_dump(),
        "longest": recipe.data.max_length,
        "usual_lengths": opened.report.get("usual_lengths"),
        "positions": num_positions,
        "search": recipe.search.model_dump(mode="json") | {"shortlist": False},  # unsupported
        "vocabulary": vocabulary.digest,
        "quantization": config.quantization,
        "step": opened.step,
        "sha256": files.sha256(path / "model.bin"),
        "files": {
            each.name: files.sha256(each)
            for each in sorted([path / "config.json", *path.glob("*_vocabulary.json")])
        },
    }
    files.write_json(path / "mt.json", {**metadata, "digest": files.digest_json(metadata)})


def _distinct(pieces: list[str]) -> list[str]:
    """The pieces, repeated ones with their id: a foreign vocabulary may have its own `<s>`."""
    seen: set[str] = set()
    for number, piece in enumerate(pieces):
        if piece in seen:
            pieces[number] = f"{piece}#{number}"
        seen.add(piece)
    return pieces


# ------------------------------------------------------------------------------- weights


def specification(model: Any, config: Any, num_positions: int) -> Any:
    """A TransformerSpec with the weights of a Transformer; `config` is its recipe section."""
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
    if rotary:  # of the whole head width; pairs are 2i and 2i+1, as in ours
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
            stack.position_encodings.encodings = _position_table(positions, num_positions)
        if config.norm == "pre":
            _copy_norm(stack.layer_norm, final)
        for layer, ours in zip(stack.layer, layers, strict=True):
            _copy_layer(layer, ours)
    table = model.target_embedding if model.source_embedding is None else model.source_embedding
    spec.encoder.embeddings[0].weight = _array(table.weight)
    spec.decoder.embeddings.weight = _array(model.target_embedding.weight)
    weight, bias = model.output()
    spec.decoder.projection.weight = _array(weight)
    if bias is not None:
        spec.decoder.projection.bias = _array(bias)
    return spec


def _copy_layer(layer: Any, ours: Any) -> None:
    norms = [sublayer.norm for sublayer in ours.sublayers]
    own = ours.self_attention
    _copy_linear(layer.self_attention.linear[0], own.query, own.key_value)
    _copy_linear(layer.self_attention.linear[1], own.output)
    _copy_norm(layer.self_attention.layer_norm, norms[0])
    if len(norms) == 3:
        cross = ours.cross_attention
        _copy_linear(layer.attention.linear[0], cross.query)
        _copy_linear(layer.attention.linear[1], cross.key_value)
        _copy_linear(layer.attention.linear[2], cross.output)
        _copy_norm(layer.attention.layer_norm, norms[1])
    inner, gate = ours.feed_forward.inner, ours.feed_forward.gate
    _copy_norm(layer.ffn.layer_norm, norms[-1])
    _copy_linear(layer.ffn.linear_0, inner if gate is None else gate)
    if gate is not None:
        _copy_linear(layer.ffn.linear_0_noact, inner)
    _copy_linear(layer.ffn.linear_1, ours.feed_forward.outer)


def _copy_linear(linear: Any, *ours: nn.Linear) -> None:
    """Stack the rows of one or several linear layers into one."""
    import numpy as np

    linear.weight = np.concatenate([_array(each.weight) for each in ours])
    linear.bias = np.concatenate([_array(each.bias) for each in ours])


def _copy_norm(norm: Any, ours: Any) -> None:
    norm.gamma = _array(ours.weight)
    if getattr(ours, "bias", None) is not None:
        norm.beta = _array(ours.bias)


def _position_table(positions: Any, count: int) -> Any:
    """The table [P, D] that is added to the embeddings."""
    import torch

    return _array(positions(torch.zeros(1, count, positions.d_model))[0])


def _array(tensor: Tensor) -> Any:
    return tensor.detach().float().cpu().numpy()
